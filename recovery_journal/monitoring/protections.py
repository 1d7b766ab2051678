"""Checks the log's protections (rule R2): its owner can remove them, and only a comparison with
what this program creates shows that."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec
from psycopg import Cursor
from psycopg.rows import DictRow

SCRIPT: Final = "log/log.sql"
FUNCTION: Final = re.compile(r"CREATE FUNCTION (\w+)\([^;]*?AS \$\$(.*?)\$\$", re.DOTALL)
PROTECTING: Final = {
    "journal_refuse_change": "",
    "journal_refuse_append": "journal_events, bigint",
    "journal_note_position": "",
    "journal_check_appended": "",
}
"""The arguments of these functions: an overload with the same name does not count."""
WITH_SEARCH_PATH: Final = frozenset({"journal_refuse_append"})
PLACED: Final = frozenset({"journal_note_position", "journal_check_appended"})
"""Their bodies name the schema and the sequence; the script inserts both."""

# The kinds of a trigger as the catalogue has them: 2 before, 4 INSERT, 8 DELETE, 16 UPDATE,
# 32 TRUNCATE.
TRIGGERS: Final = {
    "journal_refuse_change": 2 + 8 + 16 + 32,
    "journal_note_position": 2 + 4,
    "journal_check_appended": 4,
}

DEFINITIONS: Final = {
    "column": {
        "originator_id": 'text COLLATE "C"',
        "originator_version": "bigint",
        "topic": "text",
        "state": "bytea",
        "notification_id": "bigint",
        "recorded_at": "timestamp with time zone DEFAULT clock_timestamp()",
    },
    "constraint": {
        "journal_events_originator_version_check": "CHECK ((originator_version >= 1))",
        "journal_events_state_check": "CHECK ((octet_length(state) <= 1048576))",
        "journal_events_topic_check": "CHECK ((char_length(topic) <= 100))",
    },
}
"""As the catalogue shows what log.sql creates, except what has a sentence of its own below: what
may be null, whether positions can be chosen, and what is unique."""

MISSING: Final = """
WITH log AS (
    SELECT * FROM pg_class WHERE oid = 'journal_events'::regclass
), positions AS (
    SELECT * FROM pg_class
    WHERE oid = pg_get_serial_sequence('journal_events', 'notification_id')::regclass
), wanted_function AS (
    SELECT wanted ->> 'name' AS name,
        to_regprocedure(format('%%s(%%s)', wanted ->> 'name', wanted ->> 'takes')) AS function_id,
        CASE WHEN (wanted ->> 'has_search_path')::boolean
            THEN ARRAY['search_path=' || current_setting('search_path')]
        END AS settings,
        CASE
            WHEN (wanted ->> 'is_placed')::boolean
            THEN format(
                wanted ->> 'body',
                nspname,
                format('%%I.journal_events_notification_id_seq', nspname)
            )
            ELSE wanted ->> 'body'
        END AS body
    FROM jsonb_array_elements(%(functions)s::jsonb) AS wanted, log
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
), wanted_trigger AS (
    SELECT key AS name, value::integer AS kind FROM jsonb_each_text(%(triggers)s::jsonb)
), wanted AS (
    SELECT wanted.key AS kind, one.key AS name, one.value AS definition
    FROM jsonb_each(%(definitions)s::jsonb) AS wanted
    CROSS JOIN LATERAL jsonb_each_text(wanted.value) AS one
), found AS (
    SELECT 'column' AS kind,
        attname::text AS name,
        concat_ws(
            ' ',
            format_type(atttypid, atttypmod),
            'COLLATE ' || quote_ident(collname),
            CASE WHEN attgenerated = '' THEN 'DEFAULT' ELSE 'GENERATED' END
                || ' ' || pg_get_expr(adbin, adrelid)
        ) AS definition
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
)
SELECT format('the function %%s is missing or altered', name) AS what
FROM wanted_function, log
WHERE NOT EXISTS (
    SELECT
    FROM pg_proc
    JOIN pg_language ON pg_language.oid = prolang
    WHERE pg_proc.oid = function_id
        AND pronamespace = relnamespace
        AND prosrc = body
        AND lanname = 'plpgsql'
        AND provolatile = 'v'
        AND proconfig IS NOT DISTINCT FROM settings
        AND NOT (prosecdef OR proisstrict)
)
UNION ALL
SELECT format(
    'the trigger %%s is %%s',
    name,
    CASE
        WHEN pg_trigger.oid IS NULL THEN 'missing'
        WHEN tgenabled <> 'A' THEN 'not always enabled'
        ELSE 'altered'
    END
)
FROM wanted_trigger
CROSS JOIN log
LEFT JOIN pg_trigger ON tgrelid = log.oid AND tgname = name
LEFT JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE pg_trigger.oid IS NULL
    OR tgenabled <> 'A'
    OR tgtype <> kind
    OR tgqual IS NOT NULL
    OR tgattr::text <> ''
    OR tgnargs > 0
    OR proname <> name
    OR pronamespace <> relnamespace
UNION ALL
SELECT format('the trigger %%s does not belong there', tgname)
FROM pg_trigger
JOIN log ON tgrelid = log.oid
WHERE NOT tgisinternal AND tgname NOT IN (SELECT name FROM wanted_trigger)
UNION ALL
SELECT format('the rule %%s does not belong there', rulename)
FROM pg_rewrite
JOIN log ON ev_class = log.oid
UNION ALL
SELECT format('the table %%s inherits from the log or is inherited by it', other::regclass)
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
SELECT 'the sequence of positions was set back: an event may lie where no reader looks any more'
-- That of a sequence that was set to a number it has yet to give out is null.
WHERE coalesce(
        pg_sequence_last_value(
            pg_get_serial_sequence('journal_events', 'notification_id')::regclass
        ),
        0
    ) < (SELECT max(notification_id) FROM journal_events)
UNION ALL
SELECT format('there is no valid unique index on %%s', columns)
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
SELECT format('the column %%s may be null', attname)
FROM log
JOIN pg_attribute ON attrelid = log.oid AND NOT attnotnull AND NOT attisdropped
JOIN wanted ON kind = 'column' AND name = attname
UNION ALL
SELECT format('the %%s %%s is missing or altered', kind, name)
FROM wanted
WHERE (kind, name, definition) NOT IN (SELECT kind, name, definition FROM found)
UNION ALL
SELECT format('the %%s %%s does not belong there', kind, name)
FROM found
WHERE (kind, name) NOT IN (SELECT kind, name FROM wanted)
UNION ALL
SELECT format(
    '%%s has %%s on %%s',
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


class _Function(msgspec.Struct, frozen=True):
    """A function that protects the log, as this program creates it."""

    name: str
    takes: str
    body: str
    is_placed: bool
    has_search_path: bool


def missing_protections(cursor: Cursor[DictRow]) -> list[str]:
    """The protections that are missing or altered, in words; empty where the log is as this program
    created it."""
    wanted = {
        "functions": msgspec.json.encode(_functions()).decode(),
        "triggers": msgspec.json.encode(TRIGGERS).decode(),
        "definitions": msgspec.json.encode(DEFINITIONS).decode(),
    }
    return [row["what"] for row in cursor.execute(MISSING.encode(), wanted).fetchall()]


def body_of(name: str) -> str:
    """The body of one of the log's functions, as in its script."""
    script = files("recovery_journal").joinpath(SCRIPT).read_text(encoding="utf-8")
    bodies: dict[str, str] = dict(FUNCTION.findall(script))
    return bodies[name]


def _functions() -> Sequence[_Function]:
    return [
        _Function(name, takes, body_of(name), name in PLACED, name in WITH_SEARCH_PATH)
        for name, takes in PROTECTING.items()
    ]
