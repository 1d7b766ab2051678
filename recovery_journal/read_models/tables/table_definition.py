"""The definition of a projection's table: columns, key and indexes, from its row type."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Generic

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.postgres.database import one
from recovery_journal.projections.projection import Index, Projection, RowT
from recovery_journal.read_models.tables.as_of_index import AsOfIndex
from recovery_journal.read_models.tables.definition_rules import (
    ACTIVE,
    KEY,
    require_definition,
    require_listing,
)
from recovery_journal.read_models.tables.row_form import RowForm

CREATE: Final = "CREATE TABLE {table} ({columns})"

CREATE_TEMPORARY: Final = "CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DROP"

# The index comes first, because several indexes of one table may be made at once, and then
# becomes the primary key at no cost.
ADD_KEY_INDEX: Final = "CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {table} ({key})"

ADD_KEY: Final = "ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}"

ADD_INDEX: Final = "CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns}) {where}"

HAS_KEY: Final = """
SELECT
FROM pg_index
WHERE indexrelid = to_regclass(%(name)s)
    AND indisprimary
"""

EXISTS: Final = "SELECT to_regclass(%(name)s) IS NOT NULL AS found"

RENAME_TABLE: Final = "ALTER TABLE {table} RENAME TO {name}"

RENAME_INDEX: Final = "ALTER INDEX IF EXISTS {index} RENAME TO {name}"

VIEWS: Final = """
SELECT DISTINCT rules.ev_class::regclass::text AS view
FROM pg_depend AS needs
JOIN pg_rewrite AS rules ON rules.oid = needs.objid
WHERE needs.classid = 'pg_rewrite'::regclass
    AND needs.refclassid = 'pg_class'::regclass
    AND needs.refobjid = to_regclass(%(name)s)
ORDER BY view
"""


class TablePlace(StrEnum):
    """Which of a projection's tables: the one that readers see, the one that a rebuild prepares,
    the one that it has replaced, or the temporary one that a check folds into."""

    LIVE = ""
    SHADOW = "__shadow"
    OLD = "__old"
    CHECK = "__check"


class TableDefinition(Generic[RowT]):
    """How a projection's table is made, replaced and removed.

    It holds no connection: every method works inside of the caller's transaction.
    """

    def __init__(self, projection: Projection[RowT], place: TablePlace = TablePlace.LIVE) -> None:
        require_definition(projection)
        self.projection = projection
        self.form = RowForm(projection.row_type)
        require_listing(projection, self.form.columns)
        self.name = _table_name(projection.name, place)
        self._place = place

    # -- making ----------------------------------------------------------------------------

    def create(self, cursor: Cursor[DictRow]) -> None:
        """Make the table with its key and all its indexes."""
        self.create_bare(cursor)
        self.add_indexes(cursor)
        self.add_as_of_index(cursor)

    def create_bare(self, cursor: Cursor[DictRow]) -> None:
        """Make the table alone, to be filled by `copy` before `add_indexes`."""
        columns = [
            SQL("{} {}").format(Identifier(field), SQL(kind))
            for field, kind in self.form.columns.items()
        ]
        statement = CREATE_TEMPORARY if self._place is TablePlace.CHECK else CREATE
        cursor.execute(self._sql(statement, columns=SQL(", ").join(columns)))

    def add_indexes(self, cursor: Cursor[DictRow]) -> None:
        """Add the primary key, the indexes that the projection defines, and a list's order."""
        for name in self.index_names:
            self.add_index(cursor, name)
        self.add_key(cursor)

    @property
    def index_names(self) -> tuple[str, ...]:
        """The indexes that `add_index` makes; the first becomes the primary key."""
        return (KEY, *(index.name for index in self._indexes))

    def add_index(self, cursor: Cursor[DictRow], name: str) -> None:
        """Add one of them, unless it exists. Several sessions may each add one at once."""
        if name == KEY:
            cursor.execute(self._sql(ADD_KEY_INDEX, name=self._index_name(KEY)))
            return
        [index] = [index for index in self._indexes if index.name == name]
        cursor.execute(self._add_index(index))

    def add_key(self, cursor: Cursor[DictRow]) -> None:
        """Make the first index the primary key, unless it is."""
        if not cursor.execute(HAS_KEY, {"name": f"{self.name}__{KEY}"}).rowcount:
            cursor.execute(self._sql(ADD_KEY, name=self._index_name(KEY)))

    def add_as_of_index(self, cursor: Cursor[DictRow]) -> None:
        """Add a list's as-of index; for other tables, do nothing. Not in `add_indexes`, because a
        rebuild adds it after its switch."""
        if self.projection.listing is not None:
            AsOfIndex(self.name).create(cursor)

    def add_as_of_index_beside_writers(self, cursor: Cursor[DictRow]) -> None:
        """The same while other sessions read and write, unless it exists. The cursor must be in no
        transaction."""
        if self.projection.listing is not None:
            AsOfIndex(self.name).create_beside_writers(cursor)

    def analyze(self, cursor: Cursor[DictRow]) -> None:
        """Collect the planner's statistics of the indexed columns; it does not use those of
        others."""
        indexed = [field for index in self._indexes for field in index.fields]
        fields = dict.fromkeys((*self.projection.key_fields, *indexed))
        cursor.execute(self._sql("ANALYZE {table} ({columns})", columns=listed(fields)))

    def count(self, cursor: Cursor[DictRow]) -> int:
        """The number of rows."""
        statement = self._sql("SELECT count(*) AS count FROM {table}")
        count: int = one(cursor.execute(statement))["count"]
        return count

    def require_no_views(self, cursor: Cursor[DictRow]) -> None:
        """Raise `InvalidInput` where a view of the user depends on the table: after a switch the
        view would still read the old one."""
        rows = cursor.execute(VIEWS, {"name": self.name}).fetchall()
        if rows:
            raise InvalidInput(
                f"a rebuild of projection {self.projection.name!r}",
                found=f"the view {rows[0]['view']} on its table",
                needed="no view, for a new table takes the place of this one",
                do="drop the view and create it again afterwards",
            )

    def exists(self, cursor: Cursor[DictRow]) -> bool:
        """Whether the table exists."""
        return bool(one(cursor.execute(EXISTS, {"name": self.name}))["found"])

    def drop(self, cursor: Cursor[DictRow]) -> None:
        """Drop the table, if it exists."""
        cursor.execute(self._sql("DROP TABLE IF EXISTS {table}"))

    def lock(self, cursor: Cursor[DictRow]) -> None:
        """Block all other sessions from the table until the transaction ends."""
        cursor.execute(self._sql("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))

    def take_name(self, cursor: Cursor[DictRow], name: str) -> None:
        """Rename the table and its indexes: the old name does not exist afterwards."""
        for index in self.index_names:
            new_name = Identifier(f"{name}__{index}")
            cursor.execute(self._sql(RENAME_INDEX, index=self._index_name(index), name=new_name))
        AsOfIndex(self.name).rename(cursor, name)
        cursor.execute(self._sql(RENAME_TABLE, name=Identifier(name)))

    # -- details ---------------------------------------------------------------------------

    @cached_property
    def _indexes(self) -> tuple[Index, ...]:
        """The defined indexes, and one for the order of a list's active entries."""
        listing = self.projection.listing
        if listing is None:
            return self.projection.indexes
        active = Index(ACTIVE, listing.order, listing.descending, "left_position")
        return (*self.projection.indexes, active)

    def _add_index(self, index: Index) -> Composed:
        where: Composable = SQL("")
        if index.only_while_null is not None:
            where = SQL("WHERE {} IS NULL").format(Identifier(index.only_while_null))
        name, columns = self._index_name(index.name), listed(index.fields, index.descending)
        return self._sql(ADD_INDEX, name=name, columns=columns, where=where)

    def _index_name(self, name: str) -> Identifier:
        return Identifier(f"{self.name}__{name}")

    def _sql(self, statement: str, **parts: Composable) -> Composed:
        given: dict[str, Any] = {
            "table": Identifier(self.name),
            "fields": listed(self.form.columns),
            "key": listed(self.projection.key_fields),
            **parts,
        }
        return SQL(statement).format(**given)


def listed(fields: Iterable[str], descending: Collection[str] = ()) -> Composed:
    """These fields, separated by commas, as columns or as an order."""
    return SQL(", ").join(
        SQL("{} DESC" if field in descending else "{}").format(Identifier(field))
        for field in fields
    )


def drop_shadows(cursor: Cursor[DictRow], projections: Iterable[str]) -> None:
    """Drop what a rebuild of projections with these names has left, whether or not this program
    knows them."""
    for name in projections:
        shadow = Identifier(_table_name(name, TablePlace.SHADOW))
        cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(shadow))


def _table_name(projection: str, place: TablePlace) -> str:
    return f"projection_{projection}{place}"
