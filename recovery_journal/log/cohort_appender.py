"""Appends to many streams at once; each stream gets its own answer."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from struct import Struct as Layout
from typing import Final, NamedTuple

import psycopg
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import AppendConflict, InvalidInput
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.log.appender import (
    LogRow,
    columns,
    conflict_after,
    conflict_with,
    find,
    last_versions,
    row_of,
)
from recovery_journal.log.mapper import encode

COPY = b"""
COPY journal_events (originator_id, originator_version, topic, state)
FROM STDIN (FORMAT binary)
"""
# COPY's binary form: a signature, two empty fields; rows; the end. A row is the number of its
# columns, and for each its size and its bytes. Encoded here, because a whole cohort at once costs a
# third of handing psycopg row after row.
COPY_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END: Final = b"\xff\xff"
_ROW: Final = Layout("!hi").pack
_VERSION: Final = Layout("!iq").pack
_SIZE: Final = Layout("!i").pack
COLUMN_COUNT: Final = 4
VERSION_BYTES: Final = 8

INSERT_FREE = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
ON CONFLICT (originator_id, originator_version) DO NOTHING
RETURNING notification_id
"""


# For a few streams: a COPY under its savepoint takes four round trips. An event without its
# predecessor is left out like one that is stored already, so that no error ends the transaction.
INSERT_FEW = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT *
FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
    AS event(originator_id, originator_version, topic, state)
WHERE originator_version <= 1
    OR EXISTS (
        SELECT
        FROM journal_events AS earlier
        WHERE earlier.originator_id = event.originator_id
            AND earlier.originator_version = event.originator_version - 1
        OFFSET 0
    )
ON CONFLICT (originator_id, originator_version) DO NOTHING
RETURNING originator_id
"""
FEW: Final = 30


class Batch(NamedTuple):
    """The events that one stream is to append."""

    stream: str
    events: Sequence[AnyEvent]


class CohortAppender:
    """Appends one batch for each of many streams; a stale batch does not block the others."""

    def append(
        self, batches: Sequence[Sequence[AnyEvent]], cursor: Cursor[DictRow]
    ) -> list[int | AppendConflict]:
        """Append in the caller's transaction. Each batch gets its own answer, in the order given:
        its stream's version afterwards, or the conflict because of which none of its events was
        written.

        Streams are locked in order, so that overlapping cohorts do not deadlock.
        """
        wanted = sorted(map(_batch, batches), key=lambda batch: batch.stream)
        _refuse_twins(wanted)
        refused: dict[str, AppendConflict] = {}
        if wanted and len(wanted) <= FEW and all(len(batch.events) == 1 for batch in wanted):
            refused = self._insert_few(cursor, wanted)
        elif wanted and not self._copy(cursor, wanted):
            refused = self._append_free(cursor, wanted)
        return [
            refused.get(events[0].originator_id, events[-1].originator_version)
            for events in batches
        ]

    def _insert_few(
        self, cursor: Cursor[DictRow], batches: Sequence[Batch]
    ) -> dict[str, AppendConflict]:
        """Append one event to each stream, in one statement that leaves out conflicting events;
        return the conflicts of those.

        An event that is left out and not stale got its predecessor meanwhile, and is retried.
        """
        refused: dict[str, AppendConflict] = {}
        while True:
            stored = _rows(batches)
            rows = cursor.execute(INSERT_FEW, columns(stored), prepare=True).fetchall()
            done = {row["originator_id"] for row in rows}
            left_out = [batch for batch in batches if batch.stream not in done]
            if not left_out:
                return refused
            refused |= _stale(cursor, left_out)
            batches = [batch for batch in left_out if batch.stream not in refused]
            if not batches:
                return refused

    def _copy(self, cursor: Cursor[DictRow], batches: Sequence[Batch]) -> bool:
        """Append all batches with COPY; False, and nothing is written, if one is refused."""
        pieces = [COPY_BEGIN]
        for batch in batches:
            stream = batch.stream.encode()
            begin = _ROW(COLUMN_COUNT, len(stream)) + stream
            for event in batch.events:
                state = encode(event)
                version = _VERSION(VERSION_BYTES, event.originator_version)
                pieces += (begin, version, _tag(type(event)), _SIZE(len(state)), state)
        pieces.append(COPY_END)
        try:
            with cursor.connection.transaction(), cursor.copy(COPY) as copy:
                copy.write(b"".join(pieces))
        except psycopg.IntegrityError:
            return False
        return True

    def _append_free(
        self, cursor: Cursor[DictRow], batches: Sequence[Batch]
    ) -> dict[str, AppendConflict]:
        """Append the batches that can be appended, and return the conflicts of the others.

        Each turn either writes all that is left or finds another stale stream, so it ends.
        """
        refused: dict[str, AppendConflict] = {}
        while True:
            refused |= _stale(cursor, batches)
            batches = [batch for batch in batches if batch.stream not in refused]
            if not batches or self._insert_all(cursor, batches):
                return refused

    def _insert_all(self, cursor: Cursor[DictRow], batches: Sequence[Batch]) -> bool:
        """Append all batches; False, and nothing is written, if another writer was faster with
        one."""
        stored = _rows(batches)
        with cursor.connection.transaction() as savepoint:
            rows = cursor.execute(INSERT_FREE, columns(stored), prepare=True).fetchall()
            if len(rows) < len(stored):
                raise psycopg.Rollback(savepoint)
        return len(rows) == len(stored)


def _rows(batches: Sequence[Batch]) -> list[LogRow]:
    return [row_of(event) for batch in batches for event in batch.events]


def _batch(events: Sequence[AnyEvent]) -> Batch:
    first, last = events[0], events[-1]
    assert last.originator_version == first.originator_version + len(events) - 1, events
    return Batch(first.originator_id, events)


@cache
def _tag(kind: type[AnyEvent]) -> bytes:
    """The column of the tag."""
    tag = tag_of(kind).encode()
    return _SIZE(len(tag)) + tag


def _stale(cursor: Cursor[DictRow], batches: Sequence[Batch]) -> dict[str, AppendConflict]:
    last = last_versions(cursor, [batch.stream for batch in batches])
    stale = [
        batch.events[0]
        for batch in batches
        if batch.events[0].originator_version != last[batch.stream] + 1
    ]
    found = find(cursor, stale)
    conflicts = {}
    for event in stale:
        stream = event.originator_id
        record = found.get((stream, event.originator_version))
        conflicts[stream] = (
            conflict_with(event, record) if record else conflict_after(event, last[stream])
        )
    return conflicts


def _refuse_twins(batches: Sequence[Batch]) -> None:
    for earlier, later in pairwise(batches):
        if earlier.stream == later.stream:
            raise InvalidInput(
                "a cohort",
                found=f"two batches for stream {later.stream!r}",
                needed="one batch for each stream",
                do="join them",
            )
