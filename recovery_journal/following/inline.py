"""Rows written in the transaction that appends their events, as long as they are of our fold.

While a newer program rebuilds a projection, and after it has switched, older ones run on. Rows
belong to one fold: a program with another one must not write into them, also not in the moment of
the switch. What it leaves out is brought by the follower of the fold that they belong to, and by
whoever writes the next row of that stream.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier, Literal

from domain.events import AnyEvent, tag_of
from projections.fold_hash import fold_hash
from projections.projection import Fold, Projection, StreamRow
from recovery_journal.following.projection_table import ProjectionTable
from recovery_journal.log.appender import record_of

# To name the table locks it against a switch until the transaction ends, and only then, perhaps
# after a switch that it waited for, the statement takes the snapshot in which it looks.
ARE_OURS: Final = """
SELECT EXISTS (
    SELECT
    FROM projection_tracking
    WHERE projection = {projection}
        AND fold_version = {fold_version}
        AND fold_hash = {fold_hash}
) AND NOT EXISTS (SELECT FROM {table} WHERE false) AS are_ours
"""

# Not only the events of this append: programs of another fold may have left some out before them,
# and a row that passed over these would never be mended.
UNSEEN: Final = b"""
SELECT event.*
FROM unnest(%(streams)s::text[], %(versions)s::bigint[]) AS seen(stream, version)
CROSS JOIN LATERAL (
    SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
    FROM journal_events
    WHERE originator_id = seen.stream
        AND originator_version > seen.version
        AND topic = ANY(%(tags)s)
    -- Keeps this a lookup per stream: as a join it would be planned for the empty log of the
    -- session's first append and scan the whole log ever after.
    OFFSET 0
) AS event
ORDER BY notification_id
"""

StreamRowT = TypeVar("StreamRowT", bound=StreamRow)


class InlineRows(Generic[StreamRowT]):
    """The rows of one inline, stream-keyed projection, as appending transactions write them."""

    def __init__(self, projection: Projection[StreamRowT]) -> None:
        assert projection.is_inline
        assert projection.events is not None
        self._projection = projection
        self._events = projection.events
        self._tags = [tag_of(event) for event in projection.events]
        self._table = ProjectionTable(projection)
        self._are_ours_sql = (
            SQL(ARE_OURS)
            .format(
                table=Identifier(self._table.name),
                projection=Literal(projection.name),
                fold_version=Literal(projection.version),
                fold_hash=Literal(fold_hash(projection)),
            )
            .as_bytes(None)
        )

    def write(self, cursor: Cursor[DictRow], events: Iterable[AnyEvent]) -> None:
        """Fold these events, which this transaction has appended, unless the rows are of another
        fold. Raises `FoldFailed`."""
        streams = sorted({it.originator_id for it in events if isinstance(it, self._events)})
        if not streams or not self._are_ours(cursor):
            return
        newest = self._table.newest(cursor, streams)
        fold = Fold(self._projection, newest)
        fold.add(map(record_of, self._unseen(cursor, streams, newest)))
        self._table.upsert(cursor, fold.changed())

    def _are_ours(self, cursor: Cursor[DictRow]) -> bool:
        row = cursor.execute(self._are_ours_sql, prepare=True).fetchone()
        return row is not None and bool(row["are_ours"])

    def _unseen(
        self, cursor: Cursor[DictRow], streams: Sequence[str], newest: dict[str, StreamRowT]
    ) -> list[DictRow]:
        wanted = {
            "streams": streams,
            "versions": [newest[it].version if it in newest else 0 for it in streams],
            "tags": self._tags,
        }
        return cursor.execute(UNSEEN, wanted, prepare=True).fetchall()
