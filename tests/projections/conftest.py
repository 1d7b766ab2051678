"""Schemas for the tests of projections: an empty one, and one with a journal's tables."""

from collections.abc import Iterator
from functools import partial

import pytest

from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.schema import create_projections
from tests.projections.writing import Writer


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    """A database whose schema exists and is empty."""
    database = Database(server_dsn, schema)
    with database.cursor() as cursor:
        cursor.execute(f'CREATE SCHEMA "{schema}"'.encode())
    yield database
    database.close()


@pytest.fixture
def writer(database: Database) -> Writer:
    """A writer to a log whose projections exist and are empty."""
    schemas.create(database, partial(create_projections, database))
    return Writer(database)
