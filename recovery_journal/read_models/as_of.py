"""Lists as they are, and as they were at any past position."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from recovery_journal import inputs
from recovery_journal.domain.errors import PositionNotReached
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Projection, RowT
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.tables.as_of_index import STAY_BITS, AsOfIndex
from recovery_journal.read_models.tables.projection_table import as_json, table_of
from recovery_journal.read_models.tables.row_errors import translating_read_errors
from recovery_journal.read_models.tables.table_definition import listed

Only: TypeAlias = Mapping[str, Sequence[str] | None]
"""By field: the values of which a row must have one; None for no filter."""

ENTRIES_NOW: Final = "SELECT * FROM {table} WHERE left_position IS NULL"

DISPATCHABLE_NOW: Final = f"""
{ENTRIES_NOW}
    AND (not_before IS NULL OR not_before <= clock_timestamp())
"""
"""Of the dispatch-ready list."""

# Entries that have left since, found by the as-of index, and entries that have not, by the list's
# own. OFFSET 0 forces a short index scan for each length: the planner assumes that the lengths of
# stays and their positions are independent, and would scan the table.
ENTRIES_THEN: Final = """
SELECT entry.*
FROM generate_series(1, 62) AS stay(bits)
CROSS JOIN LATERAL (
    SELECT *
    FROM {table}
    WHERE {stay_bits} = stay.bits
        AND entered_position > %(position)s::bigint - (1::bigint << stay.bits)
        AND entered_position <= %(position)s::bigint
        AND left_position > %(position)s::bigint
    OFFSET 0
) AS entry
UNION ALL
SELECT *
FROM {table}
WHERE entered_position <= %(position)s::bigint
    AND left_position IS NULL
"""

# The same, before a rebuild has created the index.
ENTRIES_THEN_UNINDEXED: Final = """
SELECT *
FROM {table}
WHERE entered_position <= %(position)s::bigint
    AND (left_position IS NULL OR left_position > %(position)s::bigint)
"""

LISTED: Final = """
SELECT *
FROM ({entries}) AS listed
WHERE {only}
ORDER BY {order}
LIMIT %(limit)s
"""


class ListReading:
    """Reads projections that have a `listing`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tracking = ProjectionTracking(database)

    def listed(
        self,
        projection: Projection[RowT],
        *,
        position: int | None,
        limit: int,
        only: Only | None = None,
        entries_now: str = ENTRIES_NOW,
    ) -> list[RowT]:
        """The entries of the list now or at a settled position, in the list's order, each entry as
        it was then. Raises `InvalidInput` for a projection that keeps no list, `PositionNotReached`
        where the follower has not reached the position, `RowsUnreadable`."""
        wanted = {field: values for field, values in (only or {}).items() if values is not None}
        values = {"position": position, "limit": limit, **wanted}
        if position is not None and not projection.is_inline:
            self._require(projection.name, position)
        with translating_read_errors(projection), self._database.cursor() as cursor:
            entries = entries_now if position is None else entries_then(cursor, projection)
            statement = statement_of(projection, entries, tuple(wanted))
            rows = table_of(projection).fetch(cursor, statement, values)
        return [_as_then(projection, row) for row in rows]

    def _require(self, projection: str, position: int) -> None:
        place = self._tracking.find(projection)
        found = 0 if place is None else place.position
        if found < position:
            raise PositionNotReached(projection, found=found, needed=position, timeout_s=0)


def _as_then(projection: Projection[RowT], row: RowT) -> RowT:
    """The entry before it left, as `Listing` says."""
    if getattr(row, "left_position", None) is None:
        return row
    changes: dict[str, Any] = {it: None for it in row.__struct_fields__ if it.startswith("left_")}
    changes[projection.guard] = getattr(row, f"entered_{projection.guard}")
    return replace(row, **changes)


def entries_then(cursor: Cursor[DictRow], projection: Projection[Any]) -> str:
    """The query for what was on the list: by its as-of index, if that exists."""
    is_indexed = AsOfIndex(table_of(projection).name).is_valid(cursor)
    return ENTRIES_THEN if is_indexed else ENTRIES_THEN_UNINDEXED


@cache
def statement_of(projection: Projection[Any], entries: str, only: tuple[str, ...] = ()) -> Composed:
    """The statement that reads these entries in the list's order, filtered by these fields."""
    listing = projection.listing
    if listing is None:
        raise inputs.refused(
            f"projection {projection.name!r} as a list", "no listing", "one", "give it a `listing`"
        )
    table = Identifier(table_of(projection).name)
    query = SQL(LISTED).format(
        entries=SQL(entries).format(table=table, stay_bits=STAY_BITS),
        only=SQL(" AND ").join([SQL("true"), *map(_is_one_of, only)]),
        order=listed(listing.order, listing.descending),
    )
    return as_json(query)


def _is_one_of(field: str) -> Composed:
    return SQL("{} = ANY({})").format(Identifier(field), Placeholder(field))
