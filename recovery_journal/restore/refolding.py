"""Corrects rows of projections after an event was skipped.

Rows that derive from one stream are folded again from that stream, at once. Rows that mix streams
cannot be: where they contain the event, they are left alone until a rebuild.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from recovery_journal.domain.errors import FoldFailed, StreamUnusable
from recovery_journal.log.block import END
from recovery_journal.log.streams import streams
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Projection, Record
from recovery_journal.read_models.following.tracking import (
    Followed,
    FollowingState,
    ProjectionTracking,
)
from recovery_journal.read_models.tables.projection_table import table_of

FORGET_ROWS: Final = "DELETE FROM {table} WHERE {key} = %(stream)s"

NO_FOLD: Final = "of a log with an event that is skipped"


class Refolding:
    """Works in the transaction of the skip, which holds the lock of the attempt's lease row."""

    def __init__(self, database: Database, projections: Sequence[Projection[Any]]) -> None:
        self._projections = {projection.name: projection for projection in projections}
        self._tracking = ProjectionTracking(database)

    def refold(self, cursor: Cursor[DictRow], stream: str, position: int) -> tuple[str, ...]:
        """Fold the rows that contain the event at this position again without it, or leave their
        projections alone until a rebuild; return the latter. Followers that are blocked before it
        continue."""
        disowned = []
        for name in [place.projection for place in self._tracking.all()]:
            place = self._tracking.lock(cursor, name, is_patient=True)
            if place is None:
                continue
            if place.state is FollowingState.STOPPED:
                self._tracking.advance(cursor, name, place.position)
            if not self._is_refolded(cursor, place, stream, position):
                disowned.append(name)
        self._tracking.disown(cursor, disowned, NO_FOLD)
        return tuple(disowned)

    def _is_refolded(
        self, cursor: Cursor[DictRow], place: Followed, stream: str, position: int
    ) -> bool:
        projection = self._projections.get(place.projection)
        is_inline = projection is not None and projection.is_inline
        upto = END if is_inline else place.position
        if position > upto:
            return True
        if projection is None or not projection.is_stream_keyed or not place.is_of(projection):
            return False
        table = table_of(projection)
        forget = SQL(FORGET_ROWS).format(
            table=Identifier(table.name), key=Identifier(projection.key_fields[0])
        )
        cursor.execute(forget, {"stream": stream})
        try:
            table.apply(cursor, _records(cursor, stream, upto))
        except FoldFailed:  # its rebuild reports that
            return False
        return True


def _records(cursor: Cursor[DictRow], stream: str, upto: int) -> list[Record]:
    """The stream's events up to a position, or to the first that cannot be read."""
    records = []
    for row in streams(cursor, [stream])[stream].rows:
        if row.is_skipped or row.position > upto:
            continue
        try:
            records.append(row.record())
        except StreamUnusable:
            break
    return records
