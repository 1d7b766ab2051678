"""A journal of the benchmark's own, on whichever server it was given; and what is read of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from psycopg import sql

from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.schema import create_projections


@contextmanager
def fresh_schema(dsn: str) -> Iterator[Database]:
    """An empty journal in a schema that is dropped afterwards. Its statements may take long."""
    database = Database(dsn, f"benchmark_{uuid4().hex[:12]}", statement_s=0)
    try:
        schemas.create(database, partial(create_projections, database))
        yield database
    finally:
        drop_schema(database)
        database.close()


def drop_schema(database: Database) -> None:
    """Remove the schema and everything in it, if it is there."""
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(database.schema))
    with database.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(drop)


def one_row(database: Database, query: str, **values: object) -> dict[str, Any]:
    """The one row of a query."""
    with database.cursor() as cursor:
        (row,) = cursor.execute(query.encode(), values or None).fetchall()
    return row
