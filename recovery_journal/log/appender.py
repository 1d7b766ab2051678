"""Appends decisions to streams, in the caller's transaction; each stream gets its own answer."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from struct import Struct as Layout
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import AppendConflict, InvalidInput, StreamUnusable
from recovery_journal.domain.events import AnyEvent
from recovery_journal.log.mapper import TAG_OF, encode
from recovery_journal.log.open_writers import naming_writers
from recovery_journal.log.streams import find, last_versions

# For a few streams: a COPY under its savepoint takes four round trips. An event without its
# predecessor is left out like one that is stored already, so that no error ends the transaction.
INSERT: Final = b"""
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

COPY: Final = b"""
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


class Batch(NamedTuple):
    """The events that one stream is to append."""

    stream: str
    events: Sequence[AnyEvent]


def append(events: Sequence[AnyEvent], cursor: Cursor[DictRow]) -> None:
    """Append all events, of one stream or several, or none of them.

    Any event in the place of one of these raises `AppendConflict`, which carries it and leaves the
    transaction as it was. Raises `AppendBlocked` where another writer holds the place.
    """
    if not events:
        return
    batches: defaultdict[str, list[AnyEvent]] = defaultdict(list)
    for event in events:
        batches[event.originator_id].append(event)
    with naming_writers(cursor, events[0].originator_id):
        for answer in append_cohort([*batches.values()], cursor):
            if isinstance(answer, AppendConflict):
                raise answer


def append_cohort(
    batches: Sequence[Sequence[AnyEvent]], cursor: Cursor[DictRow]
) -> list[int | AppendConflict]:
    """Append one batch for each of many streams. Each gets its own answer, in the order given: its
    stream's version afterwards, or the conflict because of which none of its events was written.

    Streams are locked in order, so that overlapping cohorts do not deadlock.
    """
    left = sorted(map(_batch, batches), key=lambda batch: batch.stream)
    _refuse_twins(left)
    is_few = len(left) <= FEW and all(len(batch.events) == 1 for batch in left)
    write = _insert if is_few else _copy
    refused: dict[str, AppendConflict] = {}
    while left:
        done = write(cursor, left)
        left = [batch for batch in left if batch.stream not in done]
        # A batch that is left and not stale got its predecessor, or lost its rival, meanwhile.
        refused |= _stale(cursor, left)
        left = [batch for batch in left if batch.stream not in refused]
    return [
        refused.get(events[0].originator_id, events[-1].originator_version) for events in batches
    ]


def _insert(cursor: Cursor[DictRow], batches: Sequence[Batch]) -> set[str]:
    """Append one event to each stream, in one statement that leaves out events in conflict; the
    streams of the others."""
    events = [batch.events[0] for batch in batches]
    columns: tuple[list[Any], ...] = (
        [event.originator_id for event in events],
        [event.originator_version for event in events],
        [TAG_OF[type(event)] for event in events],
        [encode(event) for event in events],
    )
    rows = cursor.execute(INSERT, columns, prepare=True).fetchall()
    return {row["originator_id"] for row in rows}


def _copy(cursor: Cursor[DictRow], batches: Sequence[Batch]) -> set[str]:
    """Append all batches; none if one of them is in conflict. The streams that have grown."""
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
        return set()
    return {batch.stream for batch in batches}


@cache
def _tag(kind: type[AnyEvent]) -> bytes:
    """The column of the tag."""
    tag = TAG_OF[kind].encode()
    return _SIZE(len(tag)) + tag


def _batch(events: Sequence[AnyEvent]) -> Batch:
    first, last = events[0], events[-1]
    assert last.originator_version == first.originator_version + len(events) - 1, events
    return Batch(first.originator_id, events)


def _refuse_twins(batches: Sequence[Batch]) -> None:
    for earlier, later in pairwise(batches):
        if earlier.stream == later.stream:
            raise InvalidInput(
                "a cohort",
                found=f"two batches for stream {later.stream!r}",
                needed="one batch for each stream",
                do="join them",
            )


def _stale(cursor: Cursor[DictRow], batches: Sequence[Batch]) -> dict[str, AppendConflict]:
    """The conflicts of the batches that do not follow the last event of their stream."""
    if not batches:
        return {}
    last = last_versions(cursor, [batch.stream for batch in batches])
    stale = [
        batch.events[0]
        for batch in batches
        if batch.events[0].originator_version != last[batch.stream] + 1
    ]
    found = find(cursor, stale)
    conflicts = {}
    for event in stale:
        stream, version = event.originator_id, event.originator_version
        stored = found.get((stream, version))
        if stored is None:
            there, event_there = f"the stream at version {last[stream]}", None
        elif isinstance(stored, StreamUnusable):
            there = f"an event there, at position {stored.position}, that cannot be read"
            event_there = None
        else:
            there, event_there = f"an event there, at position {stored.position}", stored.event
        conflicts[stream] = AppendConflict(
            stream, expected_version=version, found=there, stored=event_there
        )
    return conflicts
