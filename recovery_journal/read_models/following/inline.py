"""Rows written in the transaction that appends their events, while they are of this program's fold.

While a newer program rebuilds a projection, and after it has switched, older programs still run.
Rows belong to one fold: a program with another one must not write to them, not even at the moment
of the switch. The rows that it leaves out are added by the follower of their fold, and by the next
program of their fold that writes a row of that stream.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

from psycopg import Cursor
from psycopg.rows import DictRow, args_row
from psycopg.sql import SQL, Identifier, Literal

from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.log.rows import Row
from recovery_journal.log.streams import EventKey
from recovery_journal.postgres.arrays import array
from recovery_journal.postgres.database import one
from recovery_journal.projections.fold_hash import fold_hash
from recovery_journal.projections.projection import Fold, Projection, Record, StreamRow
from recovery_journal.read_models.tables.projection_table import ProjectionTable

# A query that names the table locks it against a switch until the transaction ends. Only then,
# possibly after a switch that it waited for, does the statement take the snapshot from which it
# reads. It is a statement of its own, because a table of another fold may lack the columns that the
# next one names.
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
# and a row that passed over these would never be corrected. Of this append's own events, only what
# the database added to them is read; the columns are those of `Row`.
UNSEEN: Final = b"""
SELECT event.*
FROM unnest(%(streams)s::text[], %(versions)s::bigint[], %(own)s::bigint[])
    AS seen(stream, version, own)
CROSS JOIN LATERAL (
    SELECT originator_id,
        originator_version,
        CASE WHEN originator_version < seen.own THEN topic END AS topic,
        CASE WHEN originator_version < seen.own THEN state END AS state,
        notification_id,
        recorded_at,
        false AS is_skipped
    FROM journal_events
    WHERE originator_id = seen.stream
        AND originator_version > seen.version
        AND topic = ANY(%(tags)s)
        AND notification_id NOT IN (SELECT position FROM skipped_events)
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
        own = {(it.originator_id, it.originator_version): it for it in events}
        first: dict[str, int] = {}
        for (stream, version), event in own.items():
            if type(event) in self._events:
                first[stream] = min(version, first.get(stream, version))
        if not first or not self._are_ours(cursor):
            return
        newest = self._table.newest(cursor, sorted(first))
        fold = Fold(self._projection, newest)
        fold.add(_record(row, own) for row in self._unseen(cursor, first, newest))
        self._table.upsert(cursor, fold.changed())

    def _are_ours(self, cursor: Cursor[DictRow]) -> bool:
        return bool(one(cursor.execute(self._are_ours_sql, prepare=True))["are_ours"])

    def _unseen(
        self, cursor: Cursor[DictRow], first: Mapping[str, int], newest: Mapping[str, StreamRowT]
    ) -> list[Row]:
        """The events that the rows have not seen, including our own from `first` on."""
        wanted = {
            "streams": array(list(first)),
            "versions": array([newest[it].version if it in newest else 0 for it in first]),
            "own": array(list(first.values())),
            "tags": self._tags,
        }
        with cursor.connection.cursor(binary=True, row_factory=args_row(Row)) as unseen:
            return unseen.execute(UNSEEN, wanted, prepare=True).fetchall()


def _record(row: Row, own: Mapping[EventKey, AnyEvent]) -> Record:
    event = own.get((row.stream, row.version)) or row.event()
    return Record(event, row.position, row.recorded_at)
