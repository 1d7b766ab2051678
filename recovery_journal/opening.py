"""Open a journal: a server, a schema on it, and the journal over both."""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.domain.replay import Reducer
from recovery_journal.journal import Journal, validate_settings
from recovery_journal.limits import DEFAULTS, Limits
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.accepted_servers import compare
from recovery_journal.postgres.connection_string import DSN_VARIABLE
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import EmbeddedServer
from recovery_journal.postgres.server_settings import DurabilityWeakened, words_of
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.process.output import open_standard_files
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.outdated import ProjectionOutdated
from recovery_journal.read_models.schema import add_projections, catalogue, create_projections
from recovery_journal.recovery.sweep_result import StepObserver
from recovery_journal.values.codec import Codec

SCHEMA_VARIABLE: Final = "RECOVERY_JOURNAL_SCHEMA"
DEFAULT_SCHEMA: Final = "recovery_journal"


def open(  # noqa: A001 - `recovery_journal.open` reads as what it does
    dsn: str | None = None,
    *,
    schema: str | None = None,
    data: str | os.PathLike[str] | None = None,
    reducers: Mapping[str, Reducer] | None = None,
    codecs: Sequence[Codec] = (),
    projections: Sequence[Projection[Any]] = (),
    limits: Limits | None = None,
    observer: StepObserver = lambda _step: None,
    must_exist: bool = False,
    must_be_accepted: bool = True,
    must_be_own: bool = False,
    may_migrate: bool = False,
    durability: str = Durability.FULL,
) -> Journal:
    """Open the journal in a schema of a PostgreSQL server, and create its tables if there are none.

    Without a DSN it uses `$RECOVERY_JOURNAL_DSN`, else the embedded server with its data in the
    folder `data` (or in the user's own folder). Without a schema it uses
    `$RECOVERY_JOURNAL_SCHEMA`, else `recovery_journal`.

    `reducers` maps a run's kind to the function that folds its run steps. `codecs` define how
    values of your own types are stored. `projections` are your own ones, beside the built-in ones;
    a projection that is new to the journal gets its table, and is followed from the beginning of
    the log. `observer` is called for every step of a recovery once that step is durable. With
    `must_exist`, a schema without a journal is refused instead of filled. With `must_be_own`, a
    schema is refused, before anything is read there, if it belongs to a role of which this role is
    no member.

    A schema that an older program made is refused with `SchemaTooOld`, at every reconnect too,
    because its processes may still run. Once they have been stopped, `may_migrate` migrates it
    first, as `recovery-journal init` does: all of its rows and events stay.

    A journal that was restored, or failed over to a standby, is refused until `after_restore` has
    accepted the server, now and at every reconnect. `must_be_accepted=False` opens it for that
    call, and for inspection.

    Every session sets synchronous_commit = on, whatever the role or the database configures.
    `durability="relaxed"` sets it off; a crash of the server may then lose what was acknowledged in
    its last second.

    Warns with `ProjectionOutdated` for each projection whose rows another fold made, and with
    `DurabilityWeakened` if the server's settings may lose what it acknowledges. Raises
    `ServerUnavailable`, `ServerTooOld`, `ServerReplaced`, `SettingRefused`, `SchemaUnsafe`,
    `SchemaTooNew`, `SchemaTooOld`, `SchemaOccupied`, `SchemaMissing`, `EmbeddedServerUnavailable`,
    `InvalidInput`.
    """
    _require(dsn=dsn, schema=schema)
    open_standard_files()
    folder = None if data is None else inputs.folder("data", data)
    limits = DEFAULTS if limits is None else limits
    validate_settings(
        reducers=reducers, codecs=codecs, projections=projections, limits=limits, observer=observer
    )
    inputs.flag("must_exist", must_exist)
    inputs.flag("must_be_accepted", must_be_accepted)
    inputs.flag("must_be_own", must_be_own)
    inputs.flag("may_migrate", may_migrate)
    kept = inputs.durability(durability)
    schema = schema or os.environ.get(SCHEMA_VARIABLE) or DEFAULT_SCHEMA
    dsn = dsn or (None if folder else os.environ.get(DSN_VARIABLE))
    with ExitStack() as on_error:
        on_close = []
        if not dsn:
            server = EmbeddedServer.start(folder)
            on_error.callback(server.close)
            on_close.append(server.close)
            dsn = server.dsn
        all_projections = catalogue(projections)
        database = Database(dsn, schema, durability=kept)
        on_error.callback(database.close)
        if may_migrate:
            schemas.migrate(database, must_be_own=must_be_own)
        _make(database, all_projections, must_exist=must_exist, must_be_own=must_be_own)
        database.guard(partial(_admit, database, must_be_accepted=must_be_accepted))
        add_projections(database, all_projections)
        journal = Journal(
            database,
            reducers=reducers,
            codecs=codecs,
            projections=all_projections,
            limits=limits,
            observer=observer,
            on_close=on_close,
        )
        for outdated in journal.outdated:
            warnings.warn(str(outdated), ProjectionOutdated, stacklevel=2)
        for name in journal.weakened:
            warnings.warn(words_of(name), DurabilityWeakened, stacklevel=2)
        on_error.pop_all()
    return journal


def _require(*, dsn: object, schema: object) -> None:
    for name, value in (("the DSN", dsn), ("the schema name", schema)):
        if not isinstance(value, str | None):  # not shown, because it may hold a password
            raise inputs.refused(name, f"a {type(value).__name__}", "text", "pass a string")


def _make(
    database: Database,
    projections: Sequence[Projection[Any]],
    *,
    must_exist: bool,
    must_be_own: bool,
) -> None:
    """Create all tables, if there are none."""
    if must_exist:
        schemas.check(database, must_be_own=must_be_own)
        return
    create_rows = partial(create_projections, database, projections=projections)
    schemas.create(database, create_rows, must_be_own=must_be_own)


def _admit(database: Database, connection: Connection[DictRow], *, must_be_accepted: bool) -> None:
    """Refuse a schema that was migrated, and a server that was replaced, since the last time."""
    schemas.require_usable(connection, database.schema)
    if must_be_accepted:
        compare(connection).require(database.schema)
