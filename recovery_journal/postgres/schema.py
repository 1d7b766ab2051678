"""The journal's schema: created in one transaction, and checked at every opening."""

from collections.abc import Callable
from importlib.resources import files
from typing import Final, TypeAlias

from psycopg import Cursor, errors
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from recovery_journal.domain.errors import SchemaMissing, SchemaOccupied, SchemaTooNew, SchemaTooOld
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.schema_privileges import require_safe

VERSION: Final = 4
SCRIPTS: Final = ("log/log.sql", "store/stores.sql", "postgres/accepted_servers.sql")

Step: TypeAlias = Callable[[Cursor[DictRow]], None]

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


def create(database: Database, *steps: Step, must_be_own: bool = False) -> bool:
    """Create the journal's tables unless they exist; return whether they were created now.

    `steps` are taken in the same transaction, after the journal's own, only when the tables are
    created. Any number of processes may do this at once: of two, one waits for the other at the
    name that both create first, which only a role can delay that may create objects there.
    `must_be_own` as in `check`, for tables that exist. Raises `SchemaUnsafe`, `SchemaTooNew`,
    `SchemaTooOld`, and `SchemaOccupied` where something else has a name that is needed.
    """
    if _found_version(database, must_be_own=must_be_own) is not None:
        return False
    require_safe(database, must_belong=True)
    try:
        with database.transaction() as cursor:
            _make(cursor, database.schema, steps)
        # The default privileges of a new schema take effect only now.
        require_safe(database)
    except TAKEN as error:
        if _found_version(database) is not None:
            return False
        raise SchemaOccupied(database.schema, found=str(error.diag.message_primary)) from error
    return True


def lock(cursor: Cursor[DictRow]) -> None:
    """Exclude all other changes of the schema until the transaction ends."""
    cursor.execute(LOCK)


def check(database: Database, *, must_be_own: bool = False) -> None:
    """Raise `SchemaMissing`, `SchemaUnsafe`, `SchemaTooNew` or `SchemaTooOld` unless this program
    can use the schema; with `must_be_own`, `SchemaUnsafe` also where it belongs to a role of which
    this role is no member."""
    if _found_version(database, must_be_own=must_be_own) is None:
        raise SchemaMissing(database.schema)


def _found_version(database: Database, *, must_be_own: bool = False) -> int | None:
    require_safe(database, must_belong=must_be_own)
    with database.cursor() as cursor:
        return _version(cursor, database.schema)


def _version(cursor: Cursor[DictRow], schema: str) -> int | None:
    if not _is_true(cursor, HAS_VERSION, schema):
        return None
    row = cursor.execute(VERSION_FOUND).fetchone()
    if row is None:  # for example a dump without its data
        raise SchemaOccupied(schema, found="the tables of a journal, and no rows that belong there")
    found: int = row["version"]
    if found > VERSION:
        raise SchemaTooNew(schema, found=found, needed=VERSION)
    if found < VERSION:
        raise SchemaTooOld(schema, found=found, needed=VERSION)
    return found


def _make(cursor: Cursor[DictRow], schema: str, steps: tuple[Step, ...]) -> None:
    _create_schema(cursor, schema)
    cursor.execute(CREATE_VERSION)  # first of all: others wait for it
    for script in SCRIPTS:
        cursor.execute(files("recovery_journal").joinpath(script).read_bytes())
    for step in steps:
        step(cursor)
    cursor.execute(SET_VERSION, {"version": VERSION})


def _create_schema(cursor: Cursor[DictRow], schema: str) -> None:
    # IF NOT EXISTS would require the right to create schemas even where this one exists.
    if not _is_true(cursor, HAS_SCHEMA, schema):
        cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))


def _is_true(cursor: Cursor[DictRow], question: str, schema: str) -> bool:
    row = cursor.execute(question.encode(), {"schema": schema}).fetchone()
    return row is not None and bool(row["found"])
