"""The table of a projection: made from its row type, written and read whole batches at a time."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, Final, Generic

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from domain.errors import InvalidInput
from domain.events import AnyEvent
from projections.projection import Fold, Index, PrimaryKey, Projection, Record, RowT
from recovery_journal.following.row_form import RowForm

PAGE_ROWS: Final = 2000
NAME: Final = re.compile(r"[a-z](_?[a-z0-9])*")
LONGEST_NAME: Final = 30
LONGEST_INDEX_NAME: Final = 12

CREATE = "CREATE TABLE {table} ({columns})"

CREATE_TEMPORARY = "CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DROP"

ADD_KEY = "ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({key})"

ADD_INDEX = "CREATE INDEX {name} ON {table} ({fields}) {where}"

RENAME_TABLE = "ALTER TABLE {table} RENAME TO {name}"

RENAME_INDEX = "ALTER INDEX {index} RENAME TO {name}"

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

FIRST_PAGE = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (SELECT * FROM {table} ORDER BY {key} LIMIT {limit}) AS page
"""

NEXT_PAGE = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    SELECT *
    FROM {table}
    WHERE ({key}) > ({after})
    ORDER BY {key}
    LIMIT {limit}
) AS page
"""


class Place(StrEnum):
    """Which of a projection's tables: the one that readers see, the one that a rebuild prepares,
    or the one that a check folds into and that goes with its transaction."""

    LIVE = ""
    SHADOW = "__shadow"
    CHECK = "__check"


class ProjectionTable(Generic[RowT]):
    """A table of one projection's rows.

    It holds no connection: every method works inside of the caller's transaction.
    """

    def __init__(self, projection: Projection[RowT], place: Place = Place.LIVE) -> None:
        _check(projection)
        self.projection = projection
        self.form = RowForm(projection.row_type)
        self.name = f"projection_{projection.name}{place}"
        self._place = place

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
        cursor.execute(self._newest_sql, {"keys": keys}, prepare=True)
        first = self.projection.key_fields[0]
        return {getattr(row, first): row for row in self._fetched(cursor)}

    def upsert(self, cursor: Cursor[DictRow], rows: Sequence[RowT]) -> None:
        """Store rows sorted by primary key; one that is older than the stored one does nothing.

        Such a row still locks the stored one, so send none that did not change.
        """
        if rows:
            text = self.form.to_json(rows).decode()
            cursor.execute(self._upsert_sql, {"rows": text}, prepare=True)

    def copy(self, cursor: Cursor[DictRow], rows: Iterable[RowT]) -> None:
        """Store rows that are new to the table, at once."""
        with cursor.copy(self._copy_sql) as copy:
            copy.write(self.form.to_csv(rows))

    # -- reading ---------------------------------------------------------------------------

    def rows(self, cursor: Cursor[DictRow], *, page_rows: int = PAGE_ROWS) -> Iterator[RowT]:
        """All rows in order of the primary key, one page in memory at a time.

        They belong together only in a transaction that keeps its snapshot.
        """
        statement = self._sql(FIRST_PAGE, limit=Literal(page_rows))
        while True:
            page = self._fetched(cursor.execute(statement))
            yield from page
            if len(page) < page_rows:
                return
            statement = self._next_page(self.projection.primary_key(page[-1]), page_rows)

    # -- making ----------------------------------------------------------------------------

    def create(self, cursor: Cursor[DictRow]) -> None:
        """Make the table with its key and indexes."""
        self.create_bare(cursor)
        self.add_indexes(cursor)

    def create_bare(self, cursor: Cursor[DictRow]) -> None:
        """Make the table alone, to be filled by `copy` before `add_indexes`."""
        columns = [
            SQL("{} {}").format(Identifier(field), SQL(kind))
            for field, kind in self.form.columns.items()
        ]
        statement = CREATE_TEMPORARY if self._place is Place.CHECK else CREATE
        cursor.execute(self._sql(statement, columns=SQL(", ").join(columns)))

    def add_indexes(self, cursor: Cursor[DictRow]) -> None:
        """Add the primary key and the indexes that the projection wishes for."""
        cursor.execute(self._sql(ADD_KEY, name=self._index_name("key")))
        for index in self.projection.indexes:
            cursor.execute(self._add_index(index))

    def analyze(self, cursor: Cursor[DictRow]) -> None:
        """Let the planner know what is in the table."""
        cursor.execute(self._sql("ANALYZE {table}"))

    def exists(self, cursor: Cursor[DictRow]) -> bool:
        """Whether the table is there."""
        cursor.execute("SELECT to_regclass(%(name)s) IS NOT NULL AS found", {"name": self.name})
        row = cursor.fetchone()
        return row is not None and bool(row["found"])

    def drop(self, cursor: Cursor[DictRow]) -> None:
        """Remove the table, if it is there."""
        cursor.execute(self._sql("DROP TABLE IF EXISTS {table}"))

    def lock(self, cursor: Cursor[DictRow]) -> None:
        """Keep everyone else out of the table until the transaction ends."""
        cursor.execute(self._sql("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))

    def take_name(self, cursor: Cursor[DictRow], name: str) -> None:
        """Rename the table and its indexes: nobody finds the old name afterwards."""
        for index in ("key", *(index.name for index in self.projection.indexes)):
            of_index = Identifier(f"{name}__{index}")
            rename = self._sql(RENAME_INDEX, index=self._index_name(index), name=of_index)
            cursor.execute(rename)
        cursor.execute(self._sql(RENAME_TABLE, name=Identifier(name)))

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

    @property
    def _fields(self) -> list[Identifier]:
        return [Identifier(field) for field in self.form.columns]

    def _next_page(self, after: PrimaryKey, limit: int) -> Composed:
        values = SQL(", ").join(Literal(value) for value in after)
        return self._sql(NEXT_PAGE, after=values, limit=Literal(limit))

    def _add_index(self, index: Index) -> Composed:
        fields = [
            SQL("{} DESC" if field in index.descending else "{}").format(Identifier(field))
            for field in index.fields
        ]
        where: Composable = SQL("")
        if index.only_while_null is not None:
            where = SQL("WHERE {} IS NULL").format(Identifier(index.only_while_null))
        name = self._index_name(index.name)
        return self._sql(ADD_INDEX, name=name, fields=SQL(", ").join(fields), where=where)

    def _index_name(self, name: str) -> Identifier:
        return Identifier(f"{self.name}__{name}")

    def _bytes(self, statement: str, **parts: Composable) -> bytes:
        return self._sql(statement, **parts).as_bytes(None)

    def _sql(self, statement: str, **parts: Composable) -> Composed:
        given: dict[str, Any] = {
            "table": Identifier(self.name),
            "fields": SQL(", ").join(self._fields),
            "key": SQL(", ").join(Identifier(field) for field in self.projection.key_fields),
            **parts,
        }
        return SQL(statement).format(**given)

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


@cache
def table_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """The projection's live table; one object for one projection, so that statements are made
    once."""
    return ProjectionTable(projection)


def _check(projection: Projection[Any]) -> None:
    """Names end up in identifiers, which PostgreSQL cuts at 63 bytes without an error."""
    limits = [(projection.name, LONGEST_NAME)]
    limits += [(index.name, LONGEST_INDEX_NAME) for index in projection.indexes]
    for name, longest in limits:
        if not NAME.fullmatch(name) or len(name) > longest:
            raise InvalidInput(
                f"a name of projection {projection.name!r}",
                found=repr(name),
                needed=f"at most {longest} small letters, digits and single underscores",
                do="choose another name",
            )
    if projection.is_stream_keyed and projection.key_fields[0] != "attempt_id":
        raise InvalidInput(
            f"the key of projection {projection.name!r}",
            found=f"{projection.key_fields[0]!r} first",
            needed="'attempt_id' first, for rows that derive from one stream",
            do="name it first, or make the rows PositionRows",
        )
