"""The rows of a projection's table, written and read whole batches at a time."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache, cached_property
from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from recovery_journal.domain.events import AnyEvent
from recovery_journal.postgres.arrays import array
from recovery_journal.projections.projection import Fold, PrimaryKey, Projection, Record, RowT
from recovery_journal.read_models.tables.table_definition import TableDefinition, TablePlace
from recovery_journal.read_models.tables.write_errors import translating_write_errors

PAGE_ROWS: Final = 2000

# The newest row of each key: one descent of the primary key's index per key.
NEWEST = """
SELECT coalesce(json_agg(newest), '[]')::text AS rows
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
UPSERT = """
INSERT INTO {table} AS live ({fields})
SELECT {fields}
FROM json_to_recordset(%(rows)s::json) AS given({given})
ON CONFLICT ({key}) DO UPDATE
SET ({fields}) = ROW({excluded})
WHERE live.{guard} < EXCLUDED.{guard}
"""

COPY = "COPY {table} ({fields}) FROM STDIN (FORMAT csv, QUOTE '\"', ESCAPE '\\', NULL 'null')"

PAGE = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    SELECT *
    FROM {table}
    {only}
    ORDER BY {key}
    LIMIT {limit}
) AS page
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
        cursor.execute(self._newest_sql, {"keys": array(keys)}, prepare=True)
        first = self.projection.key_fields[0]
        return {getattr(row, first): row for row in self._fetched(cursor)}

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
        wanted = []
        if after is not None:
            wanted.append(self._sql("({key}) > ({after})", after=_values(after)))
        if key is not None:
            first = Identifier(self.projection.key_fields[0])
            wanted.append(SQL("{} = {}").format(first, Literal(key)))
        only = SQL("WHERE {}").format(SQL(" AND ").join(wanted)) if wanted else SQL("")
        return self._fetched(cursor.execute(self._sql(PAGE, only=only, limit=Literal(limit))))

    # -- statements ------------------------------------------------------------------------

    @cached_property
    def _newest_sql(self) -> bytes:
        first, *others = (Identifier(field) for field in self.projection.key_fields)
        newest_first = [SQL("{} DESC").format(field) for field in others or [first]]
        return self._bytes(NEWEST, first=first, newest_first=SQL(", ").join(newest_first))

    @cached_property
    def _upsert_sql(self) -> bytes:
        excluded = SQL(", ").join(SQL("EXCLUDED.{}").format(field) for field in self._fields)
        given = SQL(", ").join(
            SQL("{} {}").format(Identifier(field), SQL(kind.removesuffix(" NOT NULL")))
            for field, kind in self.form.columns.items()
        )
        guard = Identifier(self.projection.guard)
        return self._bytes(UPSERT, excluded=excluded, given=given, guard=guard)

    @cached_property
    def _copy_sql(self) -> bytes:
        return self._bytes(COPY)

    def _bytes(self, statement: str, **parts: Composable) -> bytes:
        return self._sql(statement, **parts).as_bytes(None)

    def _fetched(self, cursor: Cursor[DictRow]) -> list[RowT]:
        row = cursor.fetchone()
        assert row is not None
        return self.form.from_json(row["rows"])


def apply(
    cursor: Cursor[DictRow],
    projection: Projection[RowT],
    records: Iterable[tuple[AnyEvent, int, datetime]],
) -> int:
    """Fold (event, position, recorded at), in order, into the projection's rows, in the caller's
    transaction. Returns how many rows changed. Raises `FoldFailed`."""
    return table_of(projection).apply(cursor, [Record(*record) for record in records])


def shadow_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """The table in which a rebuild prepares the projection's rows."""
    return ProjectionTable(projection, TablePlace.SHADOW)


@cache
def table_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """The projection's live table; one object for each projection, so that statements are built
    once."""
    return ProjectionTable(projection)


def _values(key: PrimaryKey) -> Composed:
    return SQL(", ").join(Literal(value) for value in key)
