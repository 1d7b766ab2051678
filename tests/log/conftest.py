"""A schema with the journal's tables, and the event log over it."""

from collections.abc import Iterator

import pytest

import recovery_journal as rj
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from tests.log.event_log import EventLog


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    """A database with the journal's tables in a schema of its own."""
    database = Database(server_dsn, schema)
    schemas.create(database)
    yield database
    database.close()


@pytest.fixture
def other(server_dsn: str, database: Database) -> Iterator[Database]:
    """A second way to the same schema: another process, as it were."""
    other = Database(server_dsn, database.schema)
    yield other
    other.close()


@pytest.fixture
def event_log(database: Database) -> EventLog:
    """The event log."""
    return EventLog(database)


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """A whole journal, for what no part of it shows by itself."""
    with rj.open(server_dsn, schema=schema) as journal:
        yield journal
