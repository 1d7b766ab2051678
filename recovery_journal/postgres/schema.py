"""The journal's schema: created in one transaction, migrated by numbered steps of one transaction
each, and checked at every connection.

The scripts create the newest version, so that they show what is there. A change of them comes with
a migration that makes the same of the version before; tests/migrations holds both to that, from a
dump of each version on.
"""

from collections.abc import Callable
from importlib.resources import files
from typing import Final, TypeAlias

from psycopg import Connection, Cursor, errors
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from recovery_journal.domain.errors import SchemaMissing, SchemaOccupied, SchemaTooNew, SchemaTooOld
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.schema_privileges import require_safe

Step: TypeAlias = Callable[[Cursor[DictRow]], object]
Place: TypeAlias = Cursor[DictRow] | Connection[DictRow]

SCRIPTS: Final = ("log/log.sql", "store/stores.sql", "postgres/accepted_servers.sql")

FIRST_VERSION: Final = 5
"""The version of the first release. Checkouts before it numbered theirs from 1 to 4 and may have
left such a schema in a data folder, so no later version may be mistaken for one of those."""

MIGRATIONS: Final[tuple[Step, ...]] = ()
"""The changes since the first version, in order: each makes the next version of the one before. It
never changes once it was released, and grants privileges on what is new as `log.sql` does."""

MIGRATION_STATEMENT_S: Final = 3600.0
"""A migration may have to read a whole log; all other statements are short."""

# A lock on a table that only its owner may change, unlike an advisory lock, which any role may
# take.
LOCK = "LOCK TABLE journal_schema IN SHARE ROW EXCLUSIVE MODE"

HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s) AS found"

# By its columns: a foreign table of this name does not make the schema a journal.
HAS_VERSION = """
SELECT count(*) = 2 AS found
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %(schema)s
    AND relname = 'journal_schema'
    AND relkind = 'r'
    AND attname IN ('is_only_row', 'version')
    AND NOT attisdropped
"""

CREATE_VERSION = """
CREATE TABLE journal_schema (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    version integer NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

SET_VERSION = "INSERT INTO journal_schema (version) VALUES (%(version)s)"

CHANGE_VERSION = "UPDATE journal_schema SET version = %(version)s"

# Until the transaction ends. New objects belong to the owner of the others, not to the member of it
# that migrates.
BECOME_OWNER = """
SELECT set_config('role', %(owner)s, true),
    set_config('statement_timeout', %(statement_timeout)s, true)
"""

OWNER = """
SELECT pg_get_userbyid(relowner) AS owner
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %(schema)s AND relname = 'journal_schema'
"""

VERSION_FOUND = "SELECT version FROM journal_schema"

# An object of this name exists: a table, view, index or sequence, a type, a function. Or another
# transaction has just created it, and this one waited for its end.
TAKEN = (
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateFunction,
    errors.DuplicateSchema,
    errors.UniqueViolation,
)


def newest_version() -> int:
    """The version that this program creates, migrates to and uses."""
    return FIRST_VERSION + len(MIGRATIONS)


def script(path: str) -> Step:
    """A step that runs this file of the package."""
    return lambda cursor: cursor.execute(files("recovery_journal").joinpath(path).read_bytes())


def create(database: Database, *steps: Step, must_be_own: bool = False) -> bool:
    """Create the journal's tables unless they exist; return whether they were created now.

    `steps` are taken in the same transaction, after the journal's own, only when the tables are
    created. Any number of processes may do this at once: of two, one waits for the other at the
    name that both create first, which only a role can delay that may create objects there.
    `must_be_own` as in `check`, for tables that exist. Raises `SchemaUnsafe`, `SchemaTooNew`,
    `SchemaTooOld`, and `SchemaOccupied` where something else has a name that is needed.
    """
    if _is_usable(database, must_be_own=must_be_own):
        return False
    require_safe(database, must_belong=True)
    try:
        with database.transaction() as cursor:
            _make(cursor, database.schema, steps)
        # The default privileges of a new schema take effect only now.
        require_safe(database)
    except TAKEN as error:
        if _is_usable(database):
            return False
        raise SchemaOccupied(database.schema, found=str(error.diag.message_primary)) from error
    return True


def migrate(database: Database, *, must_be_own: bool = False) -> None:
    """Bring an older schema to this program's version; one of this version, and a missing one, are
    left alone.

    Each migration is a transaction of its own: after an error or a crash the schema has the version
    before it, and the next call continues there. Of two processes that do this at once, one waits
    for the other. Processes of the older program must have been stopped. `must_be_own` as in
    `check`. Raises `SchemaTooOld` where this role may not act as the owner of the tables, or where
    no migration leads from that version; `SchemaTooNew`, `SchemaUnsafe`, `StoreBusy`.
    """
    require_safe(database, must_belong=must_be_own)
    with database.cursor() as cursor:
        if not _is_true(cursor, HAS_VERSION, database.schema):
            return
        found = _version_there(cursor, database.schema)
    while FIRST_VERSION <= found < newest_version():
        found = _migrate_once(database, found)


def lock(cursor: Cursor[DictRow]) -> None:
    """Exclude all other changes of the schema until the transaction ends."""
    cursor.execute(LOCK)


def check(database: Database, *, must_be_own: bool = False) -> None:
    """Raise `SchemaMissing`, `SchemaUnsafe`, `SchemaTooNew` or `SchemaTooOld` unless this program
    can use the schema; with `must_be_own`, `SchemaUnsafe` also where it belongs to a role of which
    this role is no member."""
    if not _is_usable(database, must_be_own=must_be_own):
        raise SchemaMissing(database.schema)


def require_usable(place: Place, schema: str) -> None:
    """Raise `SchemaTooNew` or `SchemaTooOld` unless this program can use the journal that is there:
    for every new connection, because the schema may have been migrated meanwhile."""
    found = _version_there(place, schema)
    if found < newest_version():
        owner = _owner(place, schema) if found >= FIRST_VERSION else None
        raise SchemaTooOld(schema, found=found, needed=newest_version(), owner=owner)


def _is_usable(database: Database, *, must_be_own: bool = False) -> bool:
    require_safe(database, must_belong=must_be_own)
    with database.cursor() as cursor:
        if not _is_true(cursor, HAS_VERSION, database.schema):
            return False
        require_usable(cursor, database.schema)
    return True


def _version_there(place: Place, schema: str) -> int:
    """The version of the journal that is there. Raises `SchemaOccupied`, `SchemaTooNew`."""
    row = place.execute(VERSION_FOUND).fetchone()
    if row is None:  # for example a dump without its data
        raise SchemaOccupied(schema, found="the tables of a journal, and no rows that belong there")
    found: int = row["version"]
    if found > newest_version():
        raise SchemaTooNew(schema, found=found, needed=newest_version())
    return found


def _owner(place: Place, schema: str) -> str:
    row = place.execute(OWNER, {"schema": schema}).fetchone()
    assert row is not None
    owner: str = row["owner"]
    return owner


def _migrate_once(database: Database, found: int) -> int:
    """Take the next migration, unless another process has just taken it; return the version that
    the schema has then."""
    schema = database.schema
    limit = f"{round(MIGRATION_STATEMENT_S * 1000)}ms"
    with database.cursor() as cursor:
        owner = _owner(cursor, schema)
    try:
        with database.transaction() as cursor:
            cursor.execute(BECOME_OWNER, {"owner": owner, "statement_timeout": limit})
            lock(cursor)
            found = _version_there(cursor, schema)
            if found < newest_version():
                MIGRATIONS[found - FIRST_VERSION](cursor)
                found += 1
                cursor.execute(CHANGE_VERSION, {"version": found})
    except errors.InsufficientPrivilege as error:
        raise SchemaTooOld(schema, found=found, needed=newest_version(), owner=owner) from error
    return found


def _make(cursor: Cursor[DictRow], schema: str, steps: tuple[Step, ...]) -> None:
    _create_schema(cursor, schema)
    cursor.execute(CREATE_VERSION)  # first of all: others wait for it
    for step in (*map(script, SCRIPTS), *steps):
        step(cursor)
    cursor.execute(SET_VERSION, {"version": newest_version()})


def _create_schema(cursor: Cursor[DictRow], schema: str) -> None:
    # IF NOT EXISTS would require the right to create schemas even where this one exists.
    if not _is_true(cursor, HAS_SCHEMA, schema):
        cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))


def _is_true(cursor: Cursor[DictRow], question: str, schema: str) -> bool:
    row = cursor.execute(question.encode(), {"schema": schema}).fetchone()
    return row is not None and bool(row["found"])
