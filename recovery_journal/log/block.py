"""The log in blocks, each decoded with one call: for rebuilding and checking.

What lies at or below a settled position is complete and immutable, so its blocks may be read
outside of any transaction and in any order.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection
from psycopg.rows import class_row

from domain.errors import CorruptEvent, UnknownEvent
from domain.events import AnyEvent, tag_of
from projections.projection import Record
from recovery_journal.log.mapper import decode

BLOCK_EVENTS: Final = 2_000

BY_STREAM: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE (originator_id, originator_version) > (%(stream)s, %(version)s)
    AND notification_id <= %(upto)s
ORDER BY originator_id, originator_version
LIMIT %(limit)s
"""

BY_POSITION: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE notification_id > %(after)s AND notification_id <= %(upto)s
ORDER BY notification_id
LIMIT %(limit)s
"""

END: Final = 2**63 - 1
"""Above every position: all that is visible."""

_decoder: Final = msgspec.json.Decoder(list[AnyEvent])


class _Row(NamedTuple):
    originator_id: str
    originator_version: int
    topic: str
    state: bytes
    notification_id: int
    recorded_at: datetime


class LogBlocks:
    """Reads the log block by block, over a connection that it does not close.

    Both readers raise `UnknownEvent` or `CorruptEvent` when they come to such an event; what lies
    before it has been given then.
    """

    def __init__(self, connection: Connection[Any], *, block_events: int = BLOCK_EVENTS) -> None:
        self._connection = connection
        self._block_events = block_events

    def by_stream(self, *, upto: int = END) -> Iterator[list[Record]]:
        """Up to this position: one stream after the other, each in order of version. A long
        stream goes on in the next block."""
        stream, version = "", -1
        while rows := self._read(BY_STREAM, stream=stream, version=version, upto=upto):
            yield from _decoded(rows)
            stream, version = rows[-1].originator_id, rows[-1].originator_version

    def by_position(self, *, after: int = 0, upto: int = END) -> Iterator[list[Record]]:
        """After one position and up to another, in the log's order."""
        while rows := self._read(BY_POSITION, after=after, upto=upto):
            yield from _decoded(rows)
            after = rows[-1].notification_id

    def _read(self, statement: bytes, **places: object) -> list[_Row]:
        places["limit"] = self._block_events
        with self._connection.cursor(binary=True, row_factory=class_row(_Row)) as cursor:
            return cursor.execute(statement, places, prepare=True).fetchall()


def _decoded(rows: Sequence[_Row]) -> Iterator[list[Record]]:
    """The block, or what comes before its first event that cannot be read, and its error."""
    events = _all_at_once(rows)
    if events is None:
        yield from _one_by_one(rows)
        return
    yield [
        Record(event, row.notification_id, row.recorded_at)
        for event, row in zip(events, rows, strict=True)
    ]


def _all_at_once(rows: Sequence[_Row]) -> list[AnyEvent] | None:
    """The events; None where one cannot be read or is not the one that its columns name."""
    try:
        events = _decoder.decode(b"[" + b",".join([row.state for row in rows]) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    said = [(event.originator_id, event.originator_version, tag_of(event)) for event in events]
    return events if said == [row[:3] for row in rows] else None


def _one_by_one(rows: Sequence[_Row]) -> Iterator[list[Record]]:
    records: list[Record] = []
    for row in rows:
        try:
            event = decode(
                attempt_id=row.originator_id,
                version=row.originator_version,
                tag=row.topic,
                state=row.state,
                position=row.notification_id,
            )
        except (UnknownEvent, CorruptEvent):
            yield records
            raise
        records.append(Record(event, row.notification_id, row.recorded_at))
    yield records
