"""Appends decisions, all or nothing, and names the event that is in the way of one."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.errors import AppendConflict, StreamUnusable
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.log.mapper import decode, encode
from recovery_journal.log.open_writers import blocked
from recovery_journal.projections.projection import Record

INSERT_ONE: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""

# Rows are inserted, and so numbered, in the order of the arrays.
INSERT_MANY: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
RETURNING notification_id
"""

FIND: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
JOIN unnest(%(streams)s::text[], %(versions)s::bigint[])
    AS wanted(originator_id, originator_version)
    USING (originator_id, originator_version)
"""

LAST_VERSIONS: Final = b"""
SELECT wanted.originator_id, (
    SELECT max(originator_version)
    FROM journal_events AS event
    WHERE event.originator_id = wanted.originator_id
) AS version
FROM unnest(%(streams)s::text[]) AS wanted(originator_id)
"""

LogRow: TypeAlias = tuple[str, int, str, bytes]
"""Stream, version, tag and state."""

EventKey: TypeAlias = tuple[str, int]
Found: TypeAlias = Record | StreamUnusable


def append(events: Sequence[AnyEvent], cursor: Cursor[DictRow]) -> list[int]:
    """Append all events, of one stream or several, or none of them, in the cursor's transaction;
    return their positions.

    Any event in the place of one of these raises `AppendConflict`, which carries it and leaves the
    transaction as it was. Raises `AppendBlocked` where another writer holds the place.
    """
    if not events:
        return []
    try:
        with cursor.connection.transaction():
            return insert(cursor.connection, [row_of(event) for event in events])
    except psycopg.IntegrityError as error:
        raise conflict_of(cursor, events) from error
    except psycopg.errors.LockNotAvailable as error:
        raise blocked(cursor, events[0].originator_id) from error


def insert(connection: Connection[DictRow], rows: Sequence[LogRow]) -> list[int]:
    """Insert rows, all or none; return their positions. Raises psycopg's errors."""
    cursor = connection.cursor(row_factory=tuple_row)
    if len(rows) == 1:
        cursor.execute(INSERT_ONE, rows[0], prepare=True)
    else:
        cursor.execute(INSERT_MANY, columns(rows), prepare=True)
    return [position for (position,) in cursor.fetchall()]


def row_of(event: AnyEvent) -> LogRow:
    """The columns that a writer may set."""
    return event.originator_id, event.originator_version, tag_of(event), encode(event)


def columns(rows: Sequence[LogRow]) -> tuple[list[Any], ...]:
    """Rows as one array for each column."""
    return tuple(map(list, zip(*rows, strict=True)))


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
