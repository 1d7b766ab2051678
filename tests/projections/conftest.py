"""A schema with nothing in it but what a projection's test makes."""

from collections.abc import Iterator

import pytest

from recovery_journal.database import Database


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    """A database whose schema exists and is empty."""
    database = Database(server_dsn, schema)
    with database.cursor() as cursor:
        cursor.execute(f'CREATE SCHEMA "{schema}"'.encode())
    yield database
    database.close()
