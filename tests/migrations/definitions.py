"""The definitions of a schema as text, so that two schemas can be compared."""

from typing import Final

import psycopg
from psycopg import sql

# By name and not by place: a column that a migration adds is the last one of its table.
DEFINITIONS: Final = """
WITH home AS (
    SELECT oid FROM pg_namespace WHERE nspname = %(schema)s
), relations AS (
    SELECT pg_class.* FROM pg_class, home WHERE relnamespace = home.oid
)
SELECT format('%%s %%s: %%s', relkind, relname, reloptions)
FROM relations
UNION ALL
SELECT concat_ws(
    ' ', 'column', relname || '.' || attname, format_type(atttypid, atttypmod),
    'not null: ' || attnotnull::text, 'default: ' || pg_get_expr(adbin, adrelid),
    'identity: ' || attidentity::text, 'generated: ' || attgenerated::text,
    'collation: ' || collname
)
FROM relations
JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
LEFT JOIN pg_collation ON pg_collation.oid = attcollation
UNION ALL
SELECT concat_ws(' ', 'constraint', conname, relname, pg_get_constraintdef(pg_constraint.oid))
FROM relations
JOIN pg_constraint ON conrelid = relations.oid AND contype <> 'n'  -- said above, by each column
UNION ALL
SELECT pg_get_indexdef(indexrelid)
FROM relations
JOIN pg_index ON indrelid = relations.oid
UNION ALL
SELECT format('enabled %%s: %%s', tgenabled, pg_get_triggerdef(pg_trigger.oid))
FROM relations
JOIN pg_trigger ON tgrelid = relations.oid AND NOT tgisinternal
UNION ALL
SELECT format('view %%s: %%s', relname, pg_get_viewdef(oid))
FROM relations
WHERE relkind = 'v'
UNION ALL
SELECT concat_ws(
    ' ', 'sequence', relname, format_type(seqtypid, NULL), seqstart, seqincrement, seqmax, seqmin,
    seqcache, seqcycle
)
FROM relations
JOIN pg_sequence ON seqrelid = relations.oid
UNION ALL
SELECT pg_get_functiondef(pg_proc.oid)
FROM pg_proc, home
WHERE pronamespace = home.oid
"""


def definitions_of(dsn: str, schema: str) -> list[str]:
    """Every table, column, constraint, index, trigger, view, sequence and function, in order."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            sql.SQL("SET LOCAL search_path TO {}, pg_temp").format(sql.Identifier(schema))
        )
        rows = connection.execute(DEFINITIONS.encode(), {"schema": schema}).fetchall()
    return sorted(text.replace(schema, "the_schema") for (text,) in rows)
