"""Opening a journal: a server, a schema on it, and the journal over both."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from domain.ports import Reducer
from recovery_journal.following.projection_schema import create_projections
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import EmbeddedServer
from recovery_journal.recovering.cohort import Observer

DSN_VARIABLE: Final = "RECOVERY_JOURNAL_DSN"
SCHEMA_VARIABLE: Final = "RECOVERY_JOURNAL_SCHEMA"
DEFAULT_SCHEMA: Final = "recovery_journal"


def open(  # noqa: A001 - `recovery_journal.open` reads as what it does
    dsn: str | None = None,
    *,
    schema: str | None = None,
    data: Path | None = None,
    reducers: Mapping[str, Reducer] | None = None,
    limits: Limits | None = None,
    observer: Observer = lambda _step: None,
    must_exist: bool = False,
) -> Journal:
    """Open the journal in a schema of a PostgreSQL server, and make its tables if there are none.

    Without a DSN it uses `$RECOVERY_JOURNAL_DSN`, else the embedded server with its data in the
    folder `data` (or the user's own); without a schema `$RECOVERY_JOURNAL_SCHEMA`, else
    `recovery_journal`. `reducers` maps a run's kind to the function that folds its
    run steps. `observer` is told of every step of a recovery once it is durable. With
    `must_exist`, a schema without a journal is refused instead of filled.

    Raises `ServerUnavailable`, `ServerTooOld`, `SchemaTooNew`, `SchemaMissing`,
    `EmbeddedServerUnavailable`, `InvalidInput`.
    """
    schema = schema or os.environ.get(SCHEMA_VARIABLE) or DEFAULT_SCHEMA
    dsn = dsn or (None if data else os.environ.get(DSN_VARIABLE))
    server = None if dsn else EmbeddedServer.start(data)
    try:
        database = Database(dsn or _dsn_of(server), schema)
        try:
            if must_exist:
                schemas.check(database)
            else:
                schemas.create(database, partial(create_projections, database))
            return Journal(
                database,
                reducers=reducers,
                limits=limits or Limits(),
                observer=observer,
                on_close=[server.close] if server else [],
            )
        except BaseException:
            database.close()
            raise
    except BaseException:
        if server:
            server.close()
        raise


def _dsn_of(server: EmbeddedServer | None) -> str:
    assert server is not None
    return server.dsn
