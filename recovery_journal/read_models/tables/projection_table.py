"""The rows of a projection's table, written and read whole batches at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from recovery_journal.postgres.arrays import array
from recovery_journal.postgres.database import one
from recovery_journal.projections.projection import Fold, PrimaryKey, Projection, Record, RowT
from recovery_journal.read_models.tables.row_errors import translating_write_errors
from recovery_journal.read_models.tables.table_definition import TableDefinition, TablePlace, listed

PAGE_ROWS: Final = 2000

# One text for all rows of a query: msgspec decodes it, so that no Python runs per column.
AS_JSON: Final = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    {query}
) AS page
"""

# The newest row of each key: one descent of the primary key's index per key.
NEWEST: Final = """
SELECT newest.*
FROM unnest(%(keys)s::text[]) AS wanted(key)
CROSS JOIN LATERAL (
    SELECT *
    FROM {table}
    WHERE {first} = wanted.key
    ORDER BY {newest_first}
    LIMIT 1
) AS newest
"""

# The rows are sorted by key, so that two writers take their row locks in the same order.
UPSERT: Final = """
INSERT INTO {table} AS live ({fields})
SELECT {fields}
FROM json_to_recordset(%(rows)s::json) AS given({given})
ON CONFLICT ({key}) DO UPDATE
SET ({fields}) = ROW({excluded})
WHERE live.{guard} < EXCLUDED.{guard}
"""

COPY: Final = (
    "COPY {table} ({fields}) FROM STDIN (FORMAT csv, QUOTE '\"', ESCAPE '\\', NULL 'null')"
)

PAGE: Final = """
SELECT *
FROM {table}
WHERE {only}
ORDER BY {key}
LIMIT {limit}
"""


class ProjectionTable(TableDefinition[RowT]):
    """A table of one projection's rows: written and read whole batches at a time.

    It holds no connection: every method works inside of the caller's transaction.
    """

    # -- writing ---------------------------------------------------------------------------

    def apply(self, cursor: Cursor[DictRow], records: Sequence[Record]) -> int:
        """Fold these records, given in order, and store the rows that change: two statements for
        any number of records. Returns how many rows changed. Raises `FoldFailed`."""
        fold = self.folding(cursor, records)
        fold.add(records)
        rows = fold.changed()
        self.upsert(cursor, rows)
        return len(rows)

    def folding(self, cursor: Cursor[DictRow], records: Iterable[Record]) -> Fold[RowT]:
        """A fold that knows the newest rows of all keys that these records concern."""
        keys = {self.projection.key(record.event) for record in records}
        rows = self.newest(cursor, sorted(key for key in keys if key is not None))
        return Fold(self.projection, rows)

    def newest(self, cursor: Cursor[DictRow], keys: Sequence[str]) -> dict[str, RowT]:
        """The newest row of each of these keys that has one."""
        if not keys:
            return {}
        rows = self.fetch(cursor, self._newest_sql, {"keys": array(keys)})
        first = self.projection.key_fields[0]
        return {getattr(row, first): row for row in rows}

    def upsert(self, cursor: Cursor[DictRow], rows: Sequence[RowT]) -> None:
        """Store rows sorted by primary key; a row that is older than the stored one has no effect.

        Such a row still locks the stored one, so pass none that did not change.
        """
        if rows:
            with translating_write_errors(self.projection):
                text = self.form.to_json(rows).decode()
                cursor.execute(self._upsert_sql, {"rows": text}, prepare=True)

    def copy_csv(self, cursor: Cursor[DictRow], pieces: Iterable[bytes]) -> None:
        """Store rows that are new to the table, at once, in the form that `form.to_csv` gives."""
        with translating_write_errors(self.projection), cursor.copy(self._copy_sql) as copy:
            for piece in pieces:
                copy.write(piece)

    # -- reading ---------------------------------------------------------------------------

    def fetch(
        self,
        cursor: Cursor[DictRow],
        statement: bytes | Composed,
        values: Mapping[str, Any] | None = None,
    ) -> list[RowT]:
        """The rows of this table that a statement returns, which `as_json` has made."""
        found = one(cursor.execute(statement, values, prepare=values is not None))
        return self.form.from_json(found["rows"])

    def rows(self, cursor: Cursor[DictRow], *, page_rows: int = PAGE_ROWS) -> Iterator[RowT]:
        """All rows in order of the primary key, one page in memory at a time.

        They are consistent only in a transaction that keeps its snapshot.
        """
        after: PrimaryKey | None = None
        while True:
            page = self.page(cursor, after=after, limit=page_rows)
            yield from page
            if len(page) < page_rows:
                return
            after = self.projection.primary_key(page[-1])

    def page(
        self,
        cursor: Cursor[DictRow],
        *,
        after: PrimaryKey | None = None,
        key: str | None = None,
        limit: int = PAGE_ROWS,
    ) -> list[RowT]:
        """The first rows in order of the primary key: of all, or of those after a primary key, or
        of those with this key."""
        wanted: list[Composable] = [SQL("true")]
        if after is not None:
            values = SQL(", ").join(map(Literal, after))
            wanted.append(self._sql("({key}) > ({after})", after=values))
        if key is not None:
            first = Identifier(self.projection.key_fields[0])
            wanted.append(SQL("{} = {}").format(first, Literal(key)))
        only = SQL(" AND ").join(wanted)
        return self.fetch(cursor, as_json(self._sql(PAGE, only=only, limit=Literal(limit))))

    # -- statements ------------------------------------------------------------------------

    @cached_property
    def _newest_sql(self) -> bytes:
        first, *others = self.projection.key_fields
        order = others or [first]
        newest_first = listed(order, descending=order)
        query = self._sql(NEWEST, first=Identifier(first), newest_first=newest_first)
        return as_json(query).as_bytes(None)

    @cached_property
    def _upsert_sql(self) -> bytes:
        excluded = SQL(", ").join(Identifier("excluded", field) for field in self.form.columns)
        given = SQL(", ").join(
            SQL("{} {}").format(Identifier(field), SQL(kind.removesuffix(" NOT NULL")))
            for field, kind in self.form.columns.items()
        )
        guard = Identifier(self.projection.guard)
        return self._sql(UPSERT, excluded=excluded, given=given, guard=guard).as_bytes(None)

    @cached_property
    def _copy_sql(self) -> bytes:
        return self._sql(COPY).as_bytes(None)


def as_json(query: Composable) -> Composed:
    """The statement that returns all rows of a query as one JSON array."""
    return SQL(AS_JSON).format(query=query)


def shadow_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """The table in which a rebuild prepares the projection's rows."""
    return ProjectionTable(projection, TablePlace.SHADOW)


@cache
def table_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """The projection's live table; one object for each projection, so that statements are built
    once."""
    return ProjectionTable(projection)
