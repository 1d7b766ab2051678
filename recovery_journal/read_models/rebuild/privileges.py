"""Carries the privileges on a projection's table over to the table that replaces it."""

from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

# The server spells out the statements, because the names of privileges differ between its versions.
# A grant on a column that the new table does not have is dropped with that column.
GRANTS: Final = """
SELECT format(
    'GRANT %%s%%s ON %%I TO %%s%%s',
    granted.privilege_type,
    ' (' || quote_ident(granted.column_name) || ')',
    %(there)s::text,
    coalesce(quote_ident(role.rolname), 'PUBLIC'),
    CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' END
) AS statement
FROM (
    SELECT privileges.*, NULL::name AS column_name, relowner AS owner
    FROM pg_class
    CROSS JOIN LATERAL aclexplode(relacl) AS privileges
    WHERE oid = to_regclass(%(here)s)
    UNION ALL
    SELECT privileges.*, here.attname, relowner
    FROM pg_class
    JOIN pg_attribute AS here ON here.attrelid = pg_class.oid
    JOIN pg_attribute AS there
        ON there.attrelid = to_regclass(%(there)s)
        AND there.attname = here.attname
    CROSS JOIN LATERAL aclexplode(here.attacl) AS privileges
    WHERE pg_class.oid = to_regclass(%(here)s)
) AS granted
LEFT JOIN pg_roles AS role ON role.oid = granted.grantee
WHERE granted.grantee <> granted.owner
"""


def carry_privileges(cursor: Cursor[DictRow], here: str, there: str) -> None:
    """Grant on the table `there` what roles other than its owner were granted on the table
    `here`."""
    for row in cursor.execute(GRANTS, {"here": here, "there": there}).fetchall():
        cursor.execute(row["statement"].encode())
