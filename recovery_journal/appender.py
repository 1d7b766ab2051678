"""Appending decisions: all or nothing, or stream by stream; and finding one's own again (R5)."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

import psycopg
from eventsourcing.persistence import IntegrityError, PersistenceError, StoredEvent
from psycopg import Cursor
from psycopg.rows import DictRow

from domain.errors import AppendConflict, InvalidInput, ServerUnavailable
from domain.events import AnyEvent
from projections.projection import Record
from recovery_journal.database import Database
from recovery_journal.datastore import journal_error, journal_errors
from recovery_journal.mapper import JournalMapper, decode
from recovery_journal.recorder import JournalRecorder, columns

COPY = b"""
COPY journal_events (originator_id, originator_version, topic, state)
FROM STDIN (FORMAT binary)
"""
COPY_TYPES: Final = ("text", "int8", "text", "bytea")

INSERT_FREE = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
ON CONFLICT (originator_id, originator_version) DO NOTHING
RETURNING originator_id, originator_version
"""

FIND = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
JOIN unnest(%(streams)s::text[], %(versions)s::bigint[])
    AS wanted(originator_id, originator_version)
    USING (originator_id, originator_version)
"""

LAST_VERSIONS = b"""
SELECT wanted.originator_id, (
    SELECT max(originator_version)
    FROM journal_events AS event
    WHERE event.originator_id = wanted.originator_id
) AS version
FROM unnest(%(streams)s::text[]) AS wanted(originator_id)
"""

Place = tuple[str, int]


class Batch(NamedTuple):
    """What one stream wants to append."""

    stream: str
    events: Sequence[AnyEvent]
    stored: list[StoredEvent]


class Appender:
    """Writes to the log; every other writer of the journal comes through here."""

    def __init__(
        self, database: Database, mapper: JournalMapper, recorder: JournalRecorder
    ) -> None:
        self._database = database
        self._mapper = mapper
        self._recorder = recorder

    def append(
        self,
        events: Sequence[AnyEvent],
        *,
        cursor: Cursor[DictRow] | None = None,
        again: bool = False,
    ) -> list[int]:
        """Append all events, of one stream or several, or none of them; their positions.

        With a cursor they commit in its transaction, which a conflict leaves as it was. Without,
        a lost reply is looked into: what is there with our event ids was appended by us. With
        `again` the caller says that a reply was lost before. Any other event in the place of
        ours raises `AppendConflict`, which carries it.
        """
        if not events:
            return []
        stored = [self._mapper.to_stored_event(event) for event in events]
        if cursor is not None:
            return self._append_within(cursor, events, stored, again=again)
        if again:
            return self._append_again(events, stored)
        try:
            return list(self._recorder.insert_events(stored) or ())
        except IntegrityError as error:
            with self._database.cursor() as own:
                raise self._conflict(own, events) from error
        except PersistenceError as error:
            typed = journal_error(self._database, error)
            if typed is None:
                raise
            if not isinstance(typed, ServerUnavailable):
                raise typed from error
        return self._append_again(events, stored)

    def append_cohort(
        self,
        batches: Sequence[Sequence[AnyEvent]],
        cursor: Cursor[DictRow],
        *,
        again: bool = False,
    ) -> list[int | AppendConflict]:
        """Append one batch for each of many streams, in the caller's transaction.

        Each answers for itself: its stream's version afterwards, or the conflict for which none
        of its events was written. With `again`, a batch that is there with our event ids counts
        as done. Streams are taken in order, so that overlapping cohorts do not deadlock.
        """
        wanted = sorted((self._batch(events) for events in batches), key=lambda batch: batch.stream)
        _refuse_twins(wanted)
        refused: dict[str, AppendConflict] = {}
        if again:
            done = self._decided(cursor, wanted)
            wanted = [batch for batch in wanted if batch.stream not in done]
        if wanted and not self._copy(cursor, wanted):
            refused = self._append_singly(cursor, wanted)
        return [
            refused.get(events[0].originator_id, events[-1].originator_version)
            for events in batches
        ]

    def find(self, cursor: Cursor[DictRow], events: Iterable[AnyEvent]) -> dict[Place, Record]:
        """What the log holds in the places of these events."""
        places = [(event.originator_id, event.originator_version) for event in events]
        wanted = {
            "streams": [stream for stream, _ in places],
            "versions": [version for _, version in places],
        }
        rows = cursor.execute(FIND, wanted, prepare=True).fetchall()
        return {(row["originator_id"], row["originator_version"]): record_of(row) for row in rows}

    # All or nothing ---------------------------------------------------------------------------

    def _append_within(
        self,
        cursor: Cursor[DictRow],
        events: Sequence[AnyEvent],
        stored: list[StoredEvent],
        *,
        again: bool,
    ) -> list[int]:
        if again and (positions := self._own_positions(cursor, events)):
            return positions
        try:
            with journal_errors(self._database), cursor.connection.transaction():
                return list(self._recorder.insert_events(stored, cursor=cursor) or ())
        except IntegrityError as error:
            raise self._conflict(cursor, events) from error

    def _append_again(self, events: Sequence[AnyEvent], stored: list[StoredEvent]) -> list[int]:
        """After a lost reply, by a new connection: find our events, or append them now.

        The lost transaction may still be running; then the second insert waits for it, and
        conflicts with our own events.
        """
        with self._database.cursor() as cursor:
            positions = self._own_positions(cursor, events)
            if positions:
                return positions
            try:
                with journal_errors(self._database):
                    return list(self._recorder.insert_events(stored) or ())
            except IntegrityError as error:
                positions = self._own_positions(cursor, events)
                if positions:
                    return positions
                raise self._conflict(cursor, events) from error

    def _own_positions(self, cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> list[int]:
        """Where all of these decisions are; empty if none is there. Raises `AppendConflict`."""
        found = self.find(cursor, events)
        if not found:
            return []
        positions = []
        for event in events:
            record = found.get((event.originator_id, event.originator_version))
            if record is None or record.event.event_id != event.event_id:
                raise _conflict(event, record, last_version=None)
            positions.append(record.position)
        return positions

    def _conflict(self, cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> AppendConflict:
        found = self.find(cursor, events)
        for event in events:
            record = found.get((event.originator_id, event.originator_version))
            if record is not None:
                return _conflict(event, record, last_version=None)
        last = self._last_versions(cursor, [events[0].originator_id])
        return _conflict(events[0], None, last_version=last.get(events[0].originator_id))

    # Stream by stream -------------------------------------------------------------------------

    def _batch(self, events: Sequence[AnyEvent]) -> Batch:
        assert events, "a batch without events has no stream"
        stored = [self._mapper.to_stored_event(event) for event in events]
        return Batch(events[0].originator_id, events, stored)

    def _copy(self, cursor: Cursor[DictRow], batches: Sequence[Batch]) -> bool:
        """Append all batches the fast way; False, and nothing is written, if one is refused."""
        try:
            with cursor.connection.transaction(), cursor.copy(COPY) as copy:
                copy.set_types(COPY_TYPES)
                for batch in batches:
                    for event in batch.stored:
                        copy.write_row(
                            (
                                event.originator_id,
                                event.originator_version,
                                event.topic,
                                event.state,
                            )
                        )
        except psycopg.IntegrityError:
            return False
        return True

    def _append_singly(
        self, cursor: Cursor[DictRow], batches: Sequence[Batch]
    ) -> dict[str, AppendConflict]:
        """Append the batches that can be, and answer with the conflicts of the others.

        Each turn either writes everything left or finds another stale stream, so it ends.
        """
        refused: dict[str, AppendConflict] = {}
        while True:
            refused |= self._stale(cursor, batches)
            batches = [batch for batch in batches if batch.stream not in refused]
            if not batches or self._insert_free(cursor, batches):
                return refused

    def _stale(
        self, cursor: Cursor[DictRow], batches: Sequence[Batch]
    ) -> dict[str, AppendConflict]:
        last = self._last_versions(cursor, [batch.stream for batch in batches])
        stale = [batch for batch in batches if not _continues(batch, last[batch.stream])]
        found = self.find(cursor, [event for batch in stale for event in batch.events])
        conflicts = {}
        for batch in stale:
            event = batch.events[0]
            record = found.get((batch.stream, event.originator_version))
            conflicts[batch.stream] = _conflict(event, record, last_version=last[batch.stream])
        return conflicts

    def _insert_free(self, cursor: Cursor[DictRow], batches: Sequence[Batch]) -> bool:
        """Append all batches; False, and nothing is written, if somebody was faster."""
        stored = [event for batch in batches for event in batch.stored]
        with cursor.connection.transaction() as savepoint:
            rows = cursor.execute(INSERT_FREE, columns(stored), prepare=True).fetchall()
            if len(rows) < len(stored):
                raise psycopg.Rollback(savepoint)
        return len(rows) == len(stored)

    def _decided(self, cursor: Cursor[DictRow], batches: Sequence[Batch]) -> set[str]:
        """The streams in which all of these decisions are recorded already."""
        found = self.find(cursor, [event for batch in batches for event in batch.events])
        ids = {place: record.event.event_id for place, record in found.items()}
        return {
            batch.stream
            for batch in batches
            if all(
                ids.get((event.originator_id, event.originator_version)) == event.event_id
                for event in batch.events
            )
        }

    def _last_versions(
        self, cursor: Cursor[DictRow], streams: Sequence[str]
    ) -> dict[str, int | None]:
        rows = cursor.execute(LAST_VERSIONS, {"streams": list(streams)}, prepare=True).fetchall()
        return {row["originator_id"]: row["version"] for row in rows}


def record_of(row: DictRow) -> Record:
    """A row of the log as an event with its position and time."""
    position: int = row["notification_id"]
    recorded_at: datetime = row["recorded_at"]
    event = decode(
        attempt_id=row["originator_id"],
        version=row["originator_version"],
        tag=row["topic"],
        state=row["state"],
        position=position,
    )
    return Record(event, position, recorded_at)


def _continues(batch: Batch, last_version: int | None) -> bool:
    return batch.events[0].originator_version == (last_version or 0) + 1


def _refuse_twins(batches: Sequence[Batch]) -> None:
    for earlier, later in pairwise(batches):
        if earlier.stream == later.stream:
            raise InvalidInput(
                "a cohort",
                found=f"two batches for stream {later.stream!r}",
                needed="one batch for each stream",
                do="join them",
            )


def _conflict(
    event: AnyEvent, record: Record | None, *, last_version: int | None
) -> AppendConflict:
    if record is not None:
        found = f"an event of another decision there, at position {record.position}"
    else:
        found = f"the stream at version {last_version or 0}"
    return AppendConflict(
        event.originator_id,
        expected_version=event.originator_version,
        found=found,
        stored=record.event if record else None,
    )
