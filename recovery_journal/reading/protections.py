"""Whether the log's protections are in place (rule R2): its owner can take them away, and only a
comparison with what this program made shows it."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec
from psycopg import Cursor
from psycopg.rows import DictRow

SCRIPT: Final = "log/log.sql"
FUNCTION: Final = re.compile(r"CREATE FUNCTION (\w+)\([^;]*?AS \$\$(.*?)\$\$", re.DOTALL)
PROTECTING: Final = (
    "journal_refuse_change",
    "journal_refuse_append",
    "journal_note_position",
    "journal_check_appended",
)
PLACED: Final = frozenset({"journal_note_position", "journal_check_appended"})
"""Their bodies name the schema and the sequence; the script fills them in."""

# The kinds of a trigger as the catalogue has them: 2 before, 4 INSERT, 8 DELETE, 16 UPDATE,
# 32 TRUNCATE.
TRIGGERS: Final = {
    "journal_refuse_change": 2 + 8 + 16 + 32,
    "journal_note_position": 2 + 4,
    "journal_check_appended": 4,
}

MISSING: Final = """
WITH log AS (
    SELECT * FROM pg_class WHERE oid = 'journal_events'::regclass
), wanted_function AS (
    SELECT wanted ->> 'name' AS name,
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
)
SELECT format('the function %%s is missing or altered', name) AS what
FROM wanted_function, log
WHERE NOT EXISTS (
    SELECT
    FROM pg_proc
    JOIN pg_language ON pg_language.oid = prolang
    WHERE pronamespace = relnamespace
        AND proname = name
        AND prosrc = body
        AND lanname = 'plpgsql'
        AND NOT prosecdef
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
WHERE pg_sequence_last_value(pg_get_serial_sequence('journal_events', 'notification_id')::regclass)
    < (SELECT max(notification_id) FROM journal_events)
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
        AND indpred IS NULL
        AND columns = (
            SELECT string_agg(attname, ', ' ORDER BY place)
            FROM unnest(indkey) WITH ORDINALITY AS key(number, place)
            JOIN pg_attribute ON attrelid = log.oid AND attnum = number
        )
)
ORDER BY 1
"""


class _Function(msgspec.Struct, frozen=True):
    """A function that protects the log, as this program makes it."""

    name: str
    body: str
    is_placed: bool


def missing_protections(cursor: Cursor[DictRow]) -> list[str]:
    """What is missing or altered, in words; nothing where the log is as this program made it."""
    wanted = {
        "functions": msgspec.json.encode(_functions()).decode(),
        "triggers": msgspec.json.encode(TRIGGERS).decode(),
    }
    return [row["what"] for row in cursor.execute(MISSING.encode(), wanted).fetchall()]


def _functions() -> Sequence[_Function]:
    script = files("recovery_journal").joinpath(SCRIPT).read_text(encoding="utf-8")
    bodies = dict(FUNCTION.findall(script))
    return [_Function(name, bodies[name], name in PLACED) for name in PROTECTING]
