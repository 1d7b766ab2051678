"""Appends decisions, all or nothing, and names the event that is in the way of one."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

from eventsourcing.persistence import IntegrityError
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import AppendConflict, StoreBusy, StreamUnusable
from recovery_journal.domain.events import AnyEvent
from recovery_journal.log.datastore import journal_errors
from recovery_journal.log.mapper import JournalMapper, decode
from recovery_journal.log.open_writers import blocked, is_lock_timeout
from recovery_journal.log.recorder import JournalRecorder
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record

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

EventKey: TypeAlias = tuple[str, int]
Found: TypeAlias = Record | StreamUnusable


class Appender:
    """Appends events that belong together."""

    def __init__(
        self, database: Database, mapper: JournalMapper, recorder: JournalRecorder
    ) -> None:
        self._database = database
        self._mapper = mapper
        self._recorder = recorder

    def append(self, events: Sequence[AnyEvent], cursor: Cursor[DictRow]) -> list[int]:
        """Append all events, of one stream or several, or none of them, in the cursor's
        transaction; return their positions.

        Any event in the place of one of these raises `AppendConflict`, which carries it and leaves
        the transaction as it was. Raises `AppendBlocked` where another writer holds the place.
        """
        if not events:
            return []
        stored = [self._mapper.to_stored_event(event) for event in events]
        try:
            with journal_errors(self._database), cursor.connection.transaction():
                return list(self._recorder.insert_events(stored, cursor=cursor) or ())
        except IntegrityError as error:
            raise conflict_of(cursor, events) from error
        except StoreBusy as error:
            if is_lock_timeout(error):
                raise blocked(cursor, events[0].originator_id) from error
            raise


def find(cursor: Cursor[DictRow], events: Iterable[AnyEvent]) -> dict[EventKey, Found]:
    """The stored events in the places of these events; the error where one cannot be read."""
    places = [_place(event) for event in events]
    wanted = {
        "streams": [stream for stream, _ in places],
        "versions": [version for _, version in places],
    }
    rows = cursor.execute(FIND, wanted, prepare=True).fetchall()
    return {(row["originator_id"], row["originator_version"]): _found(row) for row in rows}


def last_versions(cursor: Cursor[DictRow], streams: Sequence[str]) -> dict[str, int]:
    """The last version of each of these streams; 0 where there is none."""
    rows = cursor.execute(LAST_VERSIONS, {"streams": list(streams)}, prepare=True).fetchall()
    return {row["originator_id"]: row["version"] or 0 for row in rows}


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


def _found(row: DictRow) -> Found:
    try:
        return record_of(row)
    except StreamUnusable as error:
        return error


def conflict_of(cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> AppendConflict:
    """Why these events could not be appended, with the stored event that blocks."""
    found = find(cursor, events)
    for event in events:
        if record := found.get(_place(event)):
            return conflict_with(event, record)
    last = last_versions(cursor, [event.originator_id for event in events])
    # No event blocks, so a stream lacks a predecessor: find the first event that does not continue
    # its stream.
    for event in events:
        if event.originator_version > last[event.originator_id] + 1:
            return conflict_after(event, last[event.originator_id])
        last[event.originator_id] = event.originator_version
    return conflict_after(events[0], last[events[0].originator_id])


def conflict_with(event: AnyEvent, record: Found) -> AppendConflict:
    """The refusal of an event whose place is taken."""
    if isinstance(record, StreamUnusable):
        found = f"an event there, at position {record.position}, that cannot be read"
        return AppendConflict(
            event.originator_id, expected_version=event.originator_version, found=found
        )
    return AppendConflict(
        event.originator_id,
        expected_version=event.originator_version,
        found=f"an event there, at position {record.position}",
        stored=record.event,
    )


def conflict_after(event: AnyEvent, last_version: int) -> AppendConflict:
    """The refusal of an event that does not follow its stream's last."""
    return AppendConflict(
        event.originator_id,
        expected_version=event.originator_version,
        found=f"the stream at version {last_version}",
    )


def _place(event: AnyEvent) -> EventKey:
    return event.originator_id, event.originator_version
