"""The log in blocks, each decoded with one call: for rebuilding and checking.

What lies at or below a settled position is complete and immutable, so its blocks may be read
outside of any transaction and in any order.
"""

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, repeat
from math import ceil
from typing import Final, TypeAlias, get_args

import msgspec
from psycopg.rows import tuple_row

from domain.errors import CorruptEvent, UnknownEvent
from domain.events import FIRST_VERSION, AnyEvent, tag_of
from projections.projection import Record
from recovery_journal.log.mapper import decode
from recovery_journal.postgres.database import Database

BLOCK_EVENTS: Final = 2_000

BY_STREAM: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE (originator_id, originator_version) > (%(stream)s, %(version)s)
    AND notification_id <= %(upto)s
ORDER BY originator_id, originator_version
LIMIT %(limit)s
"""

# Events of a stream that lie near each other in the log lie near each other on disk, and so do
# streams that began at about the same time, whatever their names are. In the order of names every
# event would be another page.
#
# One row for a stream: what it costs to make and send a row costs more than to join its events.
BEGUN: Final = b"""
SELECT begun.originator_id, event.*
FROM (
    SELECT originator_id
    FROM journal_events
    WHERE notification_id > %(after)s
        AND notification_id <= %(last)s
        -- A sum, so that first versions are not looked up in the index of streams, all of them.
        AND originator_version + 0 = %(first_version)s
) AS begun
CROSS JOIN LATERAL (
    SELECT
        string_agg(state, ',') AS states,
        string_agg(topic, ',') AS tags,
        string_agg(
            int8send(originator_version)
                || int8send(notification_id)
                || timestamptz_send(recorded_at),
            ''
        ) AS numbers
    FROM (
        SELECT originator_version, topic, state, notification_id, recorded_at
        FROM journal_events
        WHERE originator_id = begun.originator_id
            AND notification_id <= %(upto)s
        ORDER BY originator_version
        LIMIT %(limit)s
    ) AS beginning
) AS event
"""

REST: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE originator_id = %(stream)s
    AND originator_version > %(version)s
    AND notification_id <= %(upto)s
ORDER BY originator_version
LIMIT %(limit)s
"""

# Stream after stream, all of it, none remembered: what a nested loop does by itself, and too
# little at a time for compiled code to pay.
PLAINLY: Final = b"""
SELECT set_config('enable_memoize', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    set_config('cursor_tuple_fraction', '1', true),
    set_config('jit', 'off', true)
"""

BY_POSITION: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE notification_id > %(after)s AND notification_id <= %(upto)s
ORDER BY notification_id
LIMIT %(limit)s
"""

LONGEST_BEGINNING: Final = 50
"""How many events of a stream are joined; the server holds no more of it in memory."""

NUMBER_BYTES: Final = 8
NUMBERS_BYTES: Final = 3 * NUMBER_BYTES
BEFORE_FIRST_VERSION: Final = -1
ERA: Final = 946_684_800_000_000
"""PostgreSQL counts microseconds from the year 2000, which began so long after 1970."""

END: Final = 2**63 - 1
"""Above every position: all that is visible."""

_decoder: Final = msgspec.json.Decoder(list[AnyEvent])
_TAG_OF: Final = {kind: tag_of(kind) for kind in get_args(AnyEvent)}

_record: Final[Callable[[tuple[AnyEvent, int, datetime]], Record]] = partial(tuple.__new__, Record)
"""`Record._make`, without the Python in it."""

_Row: TypeAlias = tuple[str, int, str, bytes, int, datetime]
"""Stream, version, tag, state, position, recorded at."""

_Beginning: TypeAlias = tuple[str, bytes, str, bytes]
"""A stream, and of its first events the states, the tags, and three numbers each (version,
position, recorded at in PostgreSQL's microseconds), joined."""


class LogBlocks:
    """Reads the log block by block, over the connection of the thread that calls; in its
    transaction, inside of one. A block is never empty.

    All readers raise `ServerUnavailable`, `StoreBusy`, and `UnknownEvent` or `CorruptEvent` when
    they come to such an event; what lies before it has been given then.
    """

    def __init__(self, database: Database, *, block_events: int = BLOCK_EVENTS) -> None:
        self._database = database
        self._block_events = block_events

    def by_stream(self, *, upto: int = END) -> Iterator[list[Record]]:
        """Up to a position: one stream after the other in the order of their names, each in order
        of version. A long stream goes on in the next block."""
        stream, version = "", -1
        while rows := self._read(BY_STREAM, stream=stream, version=version, upto=upto):
            yield from _decoded(rows)
            stream, version = rows[-1][:2]

    def begun(self, *, after: int, last: int, upto: int) -> Iterator[list[Record]]:
        """The streams whose first event lies behind one position and at or before another, up to
        a third position: one after the other in no order, each in order of version. A long stream
        goes on in the next blocks. Needs a transaction; faster than `by_stream`."""
        connection = self._database.connection()
        connection.execute(PLAINLY)
        longest = min(LONGEST_BEGINNING, self._block_events)
        places = {"after": after, "last": last, "upto": upto, "limit": longest}
        with connection.cursor("begun", binary=True, row_factory=tuple_row) as cursor:
            cursor.execute(BEGUN, {**places, "first_version": FIRST_VERSION})
            while beginnings := cursor.fetchmany(ceil(self._block_events / longest)):
                yield from self._whole(beginnings, longest, upto)

    def _whole(
        self, beginnings: Sequence[_Beginning], longest: int, upto: int
    ) -> Iterator[list[Record]]:
        """The streams that begin so, whole: one that goes on does so behind what came before."""
        first = 0
        for at, (stream, _, _, numbers) in enumerate(beginnings, start=1):
            if len(numbers) == longest * NUMBERS_BYTES:
                yield from self._together(beginnings[first:at], upto)
                last_version = int.from_bytes(numbers[-NUMBERS_BYTES:][:NUMBER_BYTES], signed=True)
                yield from self._rest(stream, last_version, upto)
                first = at
        if first < len(beginnings):
            yield from self._together(beginnings[first:], upto)

    def _together(self, beginnings: Sequence[_Beginning], upto: int) -> Iterator[list[Record]]:
        """The block; where it cannot be read, what comes before its first event that cannot."""
        records = _of_beginnings(beginnings)
        if records is not None:
            yield records
            return
        for stream, *_ in beginnings:
            yield from self._rest(stream, BEFORE_FIRST_VERSION, upto)
        raise AssertionError("each event can be read, and not all of them together")

    def _rest(self, stream: str, version: int, upto: int) -> Iterator[list[Record]]:
        """What a stream has behind a version."""
        while rows := self._read(REST, stream=stream, version=version, upto=upto):
            yield from _decoded(rows)
            version = rows[-1][1]

    def by_position(self, *, after: int = 0, upto: int = END) -> Iterator[list[Record]]:
        """After one position and up to another, in the log's order."""
        while rows := self._read(BY_POSITION, after=after, upto=upto):
            yield from _decoded(rows)
            after = rows[-1][4]

    def _read(self, statement: bytes, **places: object) -> list[_Row]:
        places["limit"] = self._block_events
        connection = self._database.connection()
        with (
            self._database.translated(),
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            return cursor.execute(statement, places, prepare=True).fetchall()


def _decoded(rows: Sequence[_Row]) -> Iterator[list[Record]]:
    """The block, or what comes before its first event that cannot be read, and its error."""
    records = _of_rows(rows)
    if records is None:
        yield from _one_by_one(rows)
    else:
        yield records


def _of_rows(rows: Sequence[_Row]) -> list[Record] | None:
    streams, versions, tags, states, positions, times = zip(*rows, strict=True)
    return _all_at_once(streams, versions, tags, states, positions, times)


def _of_beginnings(beginnings: Sequence[_Beginning]) -> list[Record] | None:
    streams, states, tags, numbers = zip(*beginnings, strict=True)
    flat = array("q", b"".join(numbers))
    if sys.byteorder == "little":
        flat.byteswap()
    seconds = [(microseconds + ERA) / 1e6 for microseconds in flat[2::3]]
    times = msgspec.convert(seconds, list[datetime], strict=False)
    counts = [len(of_stream) // NUMBERS_BYTES for of_stream in numbers]
    names = tuple(chain.from_iterable(map(repeat, streams, counts)))
    return _all_at_once(names, tuple(flat[0::3]), tags, states, flat[1::3], times)


def _all_at_once(
    streams: tuple[str, ...],
    versions: tuple[int, ...],
    tags: Sequence[str],
    states: Sequence[bytes],
    positions: Sequence[int],
    times: Sequence[datetime],
) -> list[Record] | None:
    """The records; None where an event cannot be read or is not the one that its columns name.
    Tags and states may be joined already. Column by column, because a loop over events would take
    half as long as their decoding."""
    try:
        events = _decoder.decode(b"[" + b",".join(states) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if (
        tuple([event.originator_id for event in events]) != streams
        or tuple([event.originator_version for event in events]) != versions
        # A tag of ours holds no comma; one that did would make more tags than events.
        or ",".join([_TAG_OF[type(event)] for event in events]) != ",".join(tags)
    ):
        return None
    return list(map(_record, zip(events, positions, times, strict=True)))


def _one_by_one(rows: Sequence[_Row]) -> Iterator[list[Record]]:
    records: list[Record] = []
    for stream, version, tag, state, position, recorded_at in rows:
        try:
            event = decode(
                attempt_id=stream, version=version, tag=tag, state=state, position=position
            )
        except (UnknownEvent, CorruptEvent):
            if records:
                yield records
            raise
        records.append(Record(event, position, recorded_at))
    yield records
