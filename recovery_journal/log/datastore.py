"""The library's datastore, over our own connections and with the library's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import psycopg
from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)
from eventsourcing.postgres import PostgresDatastore
from psycopg import Connection
from psycopg.rows import DictRow

from recovery_journal.domain.errors import RecoveryJournalError, ServerUnavailable
from recovery_journal.postgres.database import Database

# The first class that matches, so the root of the others comes last.
LIBRARY_ERRORS: Final[tuple[tuple[type[psycopg.Error], type[PersistenceError]], ...]] = (
    (psycopg.InterfaceError, InterfaceError),
    (psycopg.OperationalError, OperationalError),
    (psycopg.DataError, DataError),
    (psycopg.IntegrityError, IntegrityError),
    (psycopg.InternalError, InternalError),
    (psycopg.ProgrammingError, ProgrammingError),
    (psycopg.NotSupportedError, NotSupportedError),
    (psycopg.DatabaseError, DatabaseError),
    (psycopg.Error, PersistenceError),
)


class JournalDatastore(PostgresDatastore):
    """A datastore without a pool: a checkout costs almost a third of an append."""

    def __init__(self, database: Database) -> None:
        # Not the library's __init__, which would make the pool; these are the fields it sets.
        self.database = database
        self.schema = database.schema
        self.originator_id_type = "text"
        self.enable_db_functions = False
        self.single_row_tracking = True
        self.lock_timeout = 0
        self.db_type_names = set()
        self.psycopg_type_adapters = {}
        self.psycopg_python_types = {}

    def register_type_adapters(self) -> None:
        """Nothing to register: we insert columns, not composite values."""

    @contextmanager
    def get_connection(self) -> Iterator[Connection[DictRow]]:
        """This thread's connection, with the library's errors."""
        with library_errors():
            yield self.database.connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close nothing: the connections belong to the code that opened the database."""


@contextmanager
def library_errors() -> Iterator[None]:
    """Raise the library's errors in place of psycopg's."""
    try:
        yield
    except (psycopg.Error, ServerUnavailable) as error:
        raise library_error(error) from error


def library_error(error: psycopg.Error | ServerUnavailable) -> PersistenceError:
    """The library's error for one of psycopg's."""
    if isinstance(error, ServerUnavailable):
        return OperationalError(str(error))
    return next(theirs for ours, theirs in LIBRARY_ERRORS if isinstance(error, ours))(str(error))


@contextmanager
def journal_errors(database: Database) -> Iterator[None]:
    """Raise the journal's errors in place of the library's, where there is one."""
    try:
        yield
    except PersistenceError as error:
        typed = journal_error(database, error)
        if typed is None:
            raise
        raise typed from error


def journal_error(database: Database, error: PersistenceError) -> RecoveryJournalError | None:
    """The journal's error for an error of the library, or None."""
    cause = error.__cause__
    if isinstance(cause, psycopg.Error):
        return database.typed(cause)
    return cause if isinstance(cause, RecoveryJournalError) else None
