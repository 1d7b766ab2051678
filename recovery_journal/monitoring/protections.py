"""Checks the log's protections (rule R2): its owner can remove them, and only a comparison with
what this program creates shows that."""

import re
from importlib.resources import files
from typing import Final, TypeAlias

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.database import one

SCRIPT: Final = "log/log.sql"
FUNCTION: Final = re.compile(r"CREATE FUNCTION (\w+)\([^;]*?AS \$\$(.*?)\$\$", re.DOTALL)

Facts: TypeAlias = dict[tuple[str, str], str]
"""By kind and name: the definition of what protects the log."""

FUNCTIONS: Final = {
    "journal_refuse_change": "",
    "journal_refuse_append": "journal_events, bigint",
    "journal_note_position": "",
    "journal_check_appended": "",
}
"""The arguments of these functions: an overload with the same name does not count."""
WITH_SEARCH_PATH: Final = "journal_refuse_append"

# The kinds of a trigger as the catalogue has them: 2 before, 4 INSERT, 8 DELETE, 16 UPDATE,
# 32 TRUNCATE.
TRIGGERS: Final = {
    "journal_refuse_change": 2 + 8 + 16 + 32,
    "journal_note_position": 2 + 4,
    "journal_check_appended": 4,
}

COLUMNS: Final = {
    "originator_id": 'text NOT NULL COLLATE "C"',
    "originator_version": "bigint NOT NULL",
    "topic": "text NOT NULL",
    "state": "bytea NOT NULL",
    "notification_id": "bigint NOT NULL",
    "recorded_at": "timestamp with time zone NOT NULL DEFAULT clock_timestamp()",
}
CONSTRAINTS: Final = {
    "journal_events_originator_version_check": "CHECK ((originator_version >= 1))",
    "journal_events_state_check": "CHECK ((octet_length(state) <= 1048576))",
    "journal_events_topic_check": "CHECK ((char_length(topic) <= 100))",
}
"""As the catalogue shows what log.sql creates. Whether positions can be chosen and what is unique
are among `FAULTS`."""

# The names that the script inserts into the bodies of functions.
PLACE: Final = """
SELECT quote_ident(nspname) AS home,
    quote_literal(format('%I.journal_events_notification_id_seq', nspname)) AS positions,
    current_setting('search_path') AS search_path
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'journal_events'::regclass
"""

FOUND: Final = """
WITH log AS (
    SELECT * FROM pg_class WHERE oid = 'journal_events'::regclass
)
SELECT 'function' AS kind,
    proname::text AS name,
    concat_ws(
        ' ', lanname, provolatile, prosecdef, proisstrict, array_to_string(proconfig, ' '), prosrc
    ) AS definition
FROM log
CROSS JOIN unnest(%(functions)s::text[]) AS signature
JOIN pg_proc ON pg_proc.oid = to_regprocedure(signature) AND pronamespace = relnamespace
JOIN pg_language ON pg_language.oid = prolang
UNION ALL
SELECT 'trigger',
    tgname,
    concat_ws(
        ' ',
        proname,
        tgtype,
        tgenabled,
        tgattr,
        tgnargs,
        tgqual IS NOT NULL,
        pronamespace = relnamespace
    )
FROM log
JOIN pg_trigger ON tgrelid = log.oid AND NOT tgisinternal
JOIN pg_proc ON pg_proc.oid = tgfoid
UNION ALL
SELECT 'column',
    attname,
    concat_ws(
        ' ',
        format_type(atttypid, atttypmod),
        CASE WHEN attnotnull THEN 'NOT NULL' END,
        'COLLATE ' || quote_ident(collname),
        CASE WHEN attgenerated = '' THEN 'DEFAULT' ELSE 'GENERATED' END
            || ' ' || pg_get_expr(adbin, adrelid)
    )
FROM log
JOIN pg_attribute ON attrelid = log.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_collation ON pg_collation.oid = attcollation AND attcollation <> typcollation
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT 'constraint', conname, pg_get_constraintdef(pg_constraint.oid)
FROM log
JOIN pg_constraint ON conrelid = log.oid
WHERE contype <> 'p' AND NOT (contype = 'n' AND convalidated)
UNION ALL
SELECT 'rule', rulename, ''
FROM pg_rewrite
JOIN log ON ev_class = log.oid
"""

FAULTS: Final = """
WITH log AS (
    SELECT * FROM pg_class WHERE oid = 'journal_events'::regclass
), positions AS (
    SELECT * FROM pg_class
    WHERE oid = pg_get_serial_sequence('journal_events', 'notification_id')::regclass
)
SELECT format('the table %s inherits from the log or is inherited by it', other::regclass) AS what
FROM pg_inherits
JOIN log ON log.oid IN (inhrelid, inhparent)
CROSS JOIN LATERAL (SELECT CASE WHEN inhrelid = log.oid THEN inhparent ELSE inhrelid END) AS
    relative(other)
UNION ALL
SELECT fault
FROM log
CROSS JOIN LATERAL (
    VALUES
        ('it is unlogged: a crash of the server empties it', relpersistence <> 'p'),
        ('row security is on', relrowsecurity OR relforcerowsecurity),
        ('it is no ordinary table', relkind <> 'r')
) AS checked(fault, is_so)
WHERE is_so
UNION ALL
SELECT 'positions can be chosen: notification_id is not GENERATED ALWAYS'
FROM log
WHERE NOT EXISTS (
    SELECT
    FROM pg_attribute
    WHERE attrelid = log.oid AND attname = 'notification_id' AND attidentity = 'a'
)
UNION ALL
SELECT 'the sequence of positions was set back: readers may have passed the next events'
-- That of a sequence that was set to a number it has yet to give out is null.
WHERE coalesce(
        pg_sequence_last_value(
            pg_get_serial_sequence('journal_events', 'notification_id')::regclass
        ),
        0
    ) < (SELECT max(notification_id) FROM journal_events)
UNION ALL
SELECT format('there is no valid unique index on %s', columns)
FROM log
CROSS JOIN (
    VALUES ('originator_id, originator_version'), ('notification_id')
) AS needed(columns)
WHERE NOT EXISTS (
    SELECT
    FROM pg_index
    WHERE indrelid = log.oid
        AND indisunique
        AND indisvalid
        AND indisready
        AND indimmediate
        AND indpred IS NULL
        AND indexprs IS NULL
        AND NOT EXISTS (
            SELECT
            FROM pg_opclass
            WHERE pg_opclass.oid = ANY(indclass) AND NOT opcdefault
        )
        AND columns = (
            SELECT string_agg(attname, ', ' ORDER BY place)
            FROM unnest(indkey) WITH ORDINALITY AS key(number, place)
            JOIN pg_attribute ON attrelid = log.oid AND attnum = number
            WHERE place <= indnkeyatts
        )
)
UNION ALL
SELECT 'the sequence of positions skips, repeats or keeps back numbers, or is not stored as the log'
FROM positions
CROSS JOIN log
JOIN pg_sequence ON seqrelid = positions.oid
WHERE seqincrement <> 1
    OR seqcycle
    OR seqcache <> 1
    OR positions.relpersistence <> log.relpersistence
UNION ALL
SELECT format(
    '%s has %s on %s',
    CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
    string_agg(DISTINCT privilege_type, ', ' ORDER BY privilege_type),
    place
)
FROM (
    SELECT 'the log' AS place, relowner AS owner, granted.*
    FROM log CROSS JOIN LATERAL aclexplode(relacl) AS granted
    UNION ALL
    SELECT 'the log', relowner, granted.*
    FROM log
    JOIN pg_attribute ON attrelid = log.oid
    CROSS JOIN LATERAL aclexplode(attacl) AS granted
    UNION ALL
    SELECT 'the sequence of positions', relowner, granted.*
    FROM positions CROSS JOIN LATERAL aclexplode(relacl) AS granted
) AS grants
WHERE grantee <> owner AND privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
GROUP BY grantee, place
ORDER BY 1
"""


def missing_protections(cursor: Cursor[DictRow]) -> list[str]:
    """The protections that are missing or altered, in words; empty where the log is as this program
    created it."""
    needed = _needed(**one(cursor.execute(PLACE)))
    signatures = [f"{name}({arguments})" for name, arguments in FUNCTIONS.items()]
    rows = cursor.execute(FOUND, {"functions": signatures}).fetchall()
    found: Facts = {(row["kind"], row["name"]): row["definition"] for row in rows}
    altered = [key for key in needed if found.get(key) != needed[key]]
    return [
        *(f"the {kind} {name} is missing or altered" for kind, name in altered),
        *(f"the {kind} {name} does not belong there" for kind, name in found.keys() - needed),
        *(row["what"] for row in cursor.execute(FAULTS).fetchall()),
    ]


def body_of(name: str) -> str:
    """The body of one of the log's functions, as in its script."""
    script = files("recovery_journal").joinpath(SCRIPT).read_text(encoding="utf-8")
    bodies: dict[str, str] = dict(FUNCTION.findall(script))
    return bodies[name]


def _needed(*, home: str, positions: str, search_path: str) -> Facts:
    facts: Facts = {}
    for name in FUNCTIONS:
        setting = f"search_path={search_path} " if name == WITH_SEARCH_PATH else ""
        body = body_of(name).replace("%1$I", home).replace("%2$L", positions)
        facts["function", name] = f"plpgsql v f f {setting}{body}"
    for name, kind in TRIGGERS.items():
        facts["trigger", name] = f"{name} {kind} A  0 f t"
    for kind_of, definitions in (("column", COLUMNS), ("constraint", CONSTRAINTS)):
        facts |= {(kind_of, name): definition for name, definition in definitions.items()}
    return facts
