"""Checks which roles may create functions, operators and tables in the journal's schema.

The journal's statements are resolved in it: a role that may create objects there chooses code that
every session of the journal runs, a superuser's too.
"""

from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import SchemaUnsafe
from recovery_journal.postgres.database import Database

# First of all: the statements that follow are then resolved in the server's catalogue alone.
TRUST_CATALOGUE: Final = "SET LOCAL search_path = pg_catalog, pg_temp"

CREATORS: Final = """
SELECT string_agg(
        DISTINCT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, ', '
    ) AS names
FROM pg_namespace, aclexplode(nspacl)
WHERE nspname = %(schema)s
    AND privilege_type = 'CREATE'
    AND grantee <> nspowner
    AND grantee NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)
"""

# Granted membership only: a superuser may act as any role, and must not trust any role for that.
# The owner named pg_database_owner stands for the owner of the database.
OWNER: Final = """
WITH RECURSIVE home AS (
    SELECT pg_namespace.oid AS schema_id,
        CASE WHEN nspowner = to_regrole('pg_database_owner') THEN datdba ELSE nspowner END AS owner
    FROM pg_namespace, pg_database
    WHERE nspname = %(schema)s AND datname = current_database()
), tables AS (
    SELECT pg_class.* FROM pg_class, home WHERE relnamespace = schema_id
), ours (role) AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION
    SELECT roleid FROM pg_auth_members JOIN ours ON member = role
), theirs (role) AS (
    SELECT owner FROM home
    UNION
    SELECT member FROM pg_auth_members JOIN theirs ON roleid = role
), superusers (role) AS (
    SELECT oid FROM pg_roles WHERE rolsuper
), planted (owner, name) AS (
    SELECT relowner, 'relation ' || relname FROM tables
    UNION ALL
    SELECT proowner, 'trigger ' || tgname
    FROM tables
    JOIN pg_trigger ON tgrelid = tables.oid AND NOT tgisinternal
    JOIN pg_proc ON pg_proc.oid = tgfoid
    UNION ALL
    SELECT proowner, 'function ' || proname FROM pg_proc, home WHERE pronamespace = schema_id
    UNION ALL
    SELECT oprowner, 'operator ' || oprname FROM pg_operator, home WHERE oprnamespace = schema_id
    UNION ALL
    SELECT typowner, 'type ' || typname FROM pg_type, home WHERE typnamespace = schema_id
    UNION ALL
    SELECT collowner, 'collation ' || collname FROM pg_collation, home
    WHERE collnamespace = schema_id
)
SELECT owner::regrole::text AS owner,
    owner IN (TABLE ours UNION ALL TABLE superusers) AS is_trusted,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    (
        SELECT min(planted.name || ' of ' || planted.owner::regrole::text)
        FROM planted
        WHERE planted.owner NOT IN (TABLE theirs UNION ALL TABLE superusers)
            AND planted.owner NOT IN (SELECT oid FROM pg_roles WHERE rolname = current_user)
    ) AS planted,
    (
        SELECT min(tgname)
        FROM tables
        JOIN pg_trigger ON tgrelid = tables.oid
        WHERE NOT tgisinternal AND tgqual IS NOT NULL
    ) AS conditional_trigger,
    (
        SELECT string_agg(
            DISTINCT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, ', '
        )
        FROM tables, aclexplode(relacl)
        WHERE privilege_type = 'TRIGGER'
            AND grantee NOT IN (TABLE theirs UNION ALL TABLE superusers)
    ) AS trigger_makers
FROM home
"""


def require_safe(database: Database, *, must_belong: bool = False) -> None:
    """Raise `SchemaUnsafe` where other roles may create, or have created, objects in the schema;
    with `must_belong`, also where this role is no member of its owner. A missing schema is safe."""
    with database.transaction() as cursor:
        require_safe_here(cursor, database.schema, must_belong=must_belong)


def require_safe_here(cursor: Cursor[DictRow], schema: str, *, must_belong: bool) -> None:
    """The same in a transaction, whose search path is then the server's catalogue."""
    cursor.execute(TRUST_CATALOGUE)
    home = cursor.execute(OWNER, {"schema": schema}).fetchone()
    if home is None:
        return
    if names := creators(cursor, schema):
        raise SchemaUnsafe(
            schema,
            found=f"the right to create objects in it granted to {names}",
            needed="it with its owner alone",
            do=f"REVOKE CREATE ON SCHEMA ... FROM {names}, or choose another schema",
        )
    if home["planted"]:
        raise SchemaUnsafe(
            schema,
            found=f"in it the {home['planted']}",
            needed="only objects of its owner's or a superuser's",
            do="drop what does not belong there, or choose another schema",
        )
    if home["conditional_trigger"]:
        # A trigger has no owner: any role that ever had the privilege may have created it. Its
        # function is judged above; its condition may call any other function, and cannot be judged.
        raise SchemaUnsafe(
            schema,
            found=f"in it the trigger {home['conditional_trigger']} with a condition (WHEN)",
            needed="triggers without one, for it runs with the rights of those who write",
            do="drop that trigger; a condition may stand in its function",
        )
    if must_belong and not home["is_trusted"]:
        raise SchemaUnsafe(
            schema,
            found=f"it owned by {home['owner']}, to which this role does not belong",
            needed="a schema of this role's, or of a role that it is a member of",
            do="connect as its owner, or choose another schema",
        )
    if home["is_superuser"]:
        _require_trusted(schema, home)


def _require_trusted(schema: str, home: DictRow) -> None:
    """A superuser's session must not run code of a role that is no superuser: an owner's functions
    and triggers, and the triggers of a role with that privilege, could make that role a
    superuser."""
    if not home["is_trusted"]:
        raise SchemaUnsafe(
            schema,
            found=f"it owned by {home['owner']} and this role a superuser",
            needed="a schema of a superuser's, or of a role that this one was made a member of",
            do=f"connect as {home['owner']}, or GRANT {home['owner']} TO this role to trust it",
        )
    if home["trigger_makers"]:
        raise SchemaUnsafe(
            schema,
            found=f"TRIGGER on its tables granted to {home['trigger_makers']}, and this role a "
            "superuser",
            needed="that privilege with the schema's owner alone",
            do=f"REVOKE TRIGGER ON ALL TABLES IN SCHEMA ... FROM {home['trigger_makers']}, or "
            "connect as the schema's owner",
        )


def creators(cursor: Cursor[DictRow], schema: str) -> str:
    """The roles other than the schema's owner, and no superusers, that may create objects in it."""
    row = cursor.execute(CREATORS, {"schema": schema}).fetchone()
    return (row and row["names"]) or ""
