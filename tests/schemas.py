"""A schema of a test's own, or a database, on a server that all tests share."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo


@contextmanager
def own_schema(server_dsn: str) -> Iterator[str]:
    """A schema name that nothing else uses; the schema is the test's to make and ours to drop."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield name
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        # A session that the test left open in a transaction fails the test here, and is named.
        connection.execute("SET lock_timeout = '20s'")
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@contextmanager
def own_database(server_dsn: str, options: LiteralString = "") -> Iterator[str]:
    """A database that nothing else uses, dropped in the end; where to connect."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    created, dropped = (
        sql.SQL(text).format(sql.Identifier(name))
        for text in ("CREATE DATABASE {} " + options, "DROP DATABASE {} WITH (FORCE)")
    )
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(created)
        try:
            yield make_conninfo(server_dsn, dbname=name)
        finally:
            connection.execute(dropped)


@contextmanager
def own_role(server_dsn: str) -> Iterator[str]:
    """The name of a role that may log in and nothing else, dropped in the end."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
