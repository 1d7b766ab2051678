"""Reads the log in blocks, each decoded with one call: for rebuilds and checks.

Everything at or below a settled position is complete and immutable, so its blocks may be read
outside of any transaction and in any order.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from psycopg.rows import tuple_row

from recovery_journal.domain.events import FIRST_VERSION
from recovery_journal.log.rows import COLUMNS, RowTuple, decode_rows
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record

BLOCK_EVENTS: Final = 2_000

BY_STREAM: Final = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE (originator_id, originator_version) > (%(stream)s, %(version)s)
    AND notification_id <= %(upto)s
ORDER BY originator_id, originator_version
LIMIT %(limit)s
"""

# Events of a stream that are near each other in the log are near each other on disk, and so are
# streams that began at about the same time, whatever their names are. In the order of names every
# event would be on another page.
BEGUN: Final = f"""
SELECT event.*
FROM (
    SELECT originator_id
    FROM journal_events
    WHERE notification_id > %(after)s
        AND notification_id <= %(last)s
        -- A sum, so that first versions are not looked up in the index of streams, all of them.
        AND originator_version + 0 = %(first_version)s
) AS begun
CROSS JOIN LATERAL (
    SELECT {COLUMNS}
    FROM journal_events
    WHERE originator_id = begun.originator_id
        AND notification_id <= %(upto)s
    ORDER BY originator_version
) AS event
"""

# Each stream completely, one after the other, without memoizing: a plain nested loop, planned for
# reading all rows and without parallel workers.
PLAINLY: Final = """
SELECT set_config('enable_memoize', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    set_config('cursor_tuple_fraction', '1', true)
"""

BY_POSITION: Final = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE notification_id > %(after)s AND notification_id <= %(upto)s
ORDER BY notification_id
LIMIT %(limit)s
"""

END: Final = 2**63 - 1
"""Above every position: all that is visible."""


class LogBlocks:
    """Reads the log block by block, on the connection of the calling thread; inside a transaction,
    in that transaction. A block is never empty, and holds events of attempts that are not skipped.

    All readers raise `ServerUnavailable`, `StoreBusy`, and `UnknownEvent` or `CorruptEvent` when
    they reach such an event; the events before it have been returned then.
    """

    def __init__(self, database: Database, *, block_events: int = BLOCK_EVENTS) -> None:
        self._database = database
        self._block_events = block_events

    def by_stream(self, *, upto: int = END) -> Iterator[list[Record]]:
        """Up to a position: one stream after the other in the order of their names, each in order
        of version. A long stream continues in the next block."""
        stream, version = "", -1
        while rows := self._read(BY_STREAM, stream=stream, version=version, upto=upto):
            yield from _decoded(rows)
            stream, version = rows[-1][:2]

    def begun(self, *, after: int, last: int, upto: int) -> Iterator[list[Record]]:
        """The streams whose first event is behind one position and at or before another, up to a
        third position: one after the other in no order, each in order of version. Needs a
        transaction; faster than `by_stream`."""
        connection = self._database.connection()
        connection.execute(PLAINLY)
        places = {"after": after, "last": last, "upto": upto, "first_version": FIRST_VERSION}
        with connection.cursor("begun", binary=True, row_factory=tuple_row) as cursor:
            cursor.execute(BEGUN, places)
            while rows := cursor.fetchmany(self._block_events):
                yield from _decoded(rows)

    def by_position(self, *, after: int = 0, upto: int = END) -> Iterator[list[Record]]:
        """After one position and up to another, in the log's order."""
        while rows := self._read(BY_POSITION, after=after, upto=upto):
            yield from _decoded(rows)
            after = rows[-1][4]

    def _read(self, statement: str, **places: object) -> list[RowTuple]:
        places["limit"] = self._block_events
        connection = self._database.connection()
        with (
            self._database.translated(),
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            return cursor.execute(statement, places, prepare=True).fetchall()


def _decoded(rows: Sequence[RowTuple]) -> Iterator[list[Record]]:
    """The block, or the part before its first event that cannot be read, and its error."""
    records, error = decode_rows([row for row in rows if row[0] and not row[6]])
    if records:
        yield records
    if error is not None:
        raise error
