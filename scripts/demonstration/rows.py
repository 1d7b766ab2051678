"""The rows of all projections, and that they can be thrown away and rebuilt."""

from typing import Final

from msgspec import Struct
from psycopg.sql import SQL, Identifier

import recovery_journal as rj

# All but how far each has come, which is no row of theirs.
TABLES: Final = """
SELECT tablename AS name
FROM pg_tables
WHERE schemaname = %(schema)s
    AND tablename LIKE 'projection\\_%%'
    AND tablename <> 'projection_tracking'
ORDER BY 1
"""

ROWS: Final = SQL("""
SELECT count(*) AS row_count,
    'sha256:' || encode(
        sha256(convert_to(coalesce(string_agg(line, chr(10) ORDER BY line), ''), 'UTF8')), 'hex'
    ) AS digest
FROM (SELECT to_jsonb(it)::text AS line FROM {} AS it) AS lines
""")

DROP: Final = SQL("DROP TABLE {}")


class TableRows(Struct, frozen=True, kw_only=True):
    """All rows of one table, as a count and a digest."""

    table: str
    row_count: int
    digest: str


class Rebuilt(Struct, frozen=True, kw_only=True):
    """The rows of all projections before their tables were dropped, how many tables were left
    then, and the rows after everything was rebuilt from the log's events."""

    before: tuple[TableRows, ...]
    left_count: int
    after: tuple[TableRows, ...]
    event_count: int


def drop_and_rebuild(journal: rj.Journal) -> Rebuilt:
    """Drop every projection's table, and let the journal rebuild all of them. The log stays: its
    own triggers would refuse a change."""
    before = all_rows(journal)
    with journal.database.cursor() as cursor:
        for table in tables(journal):
            cursor.execute(DROP.format(Identifier(table)))
    left_count = len(tables(journal))
    event_count = journal.rebuild().event_count
    return Rebuilt(
        before=before, left_count=left_count, after=all_rows(journal), event_count=event_count
    )


def all_rows(journal: rj.Journal) -> tuple[TableRows, ...]:
    """Every projection's rows, read without the help of the program that made them."""
    found = []
    with journal.database.cursor() as cursor:
        for table in tables(journal):
            row = cursor.execute(ROWS.format(Identifier(table))).fetchone()
            found.append(TableRows(table=table, **(row or {})))
    return tuple(found)


def tables(journal: rj.Journal) -> list[str]:
    """The tables of the projections that are there now."""
    with journal.database.cursor() as cursor:
        found = cursor.execute(TABLES, {"schema": journal.database.schema}).fetchall()
    return [row["name"] for row in found]
