"""The settings of every session of the journal, whatever the role, the database, the server or the
DSN configure.

The only place where session settings are pinned. docs/settings.md argues each one, and those that
are left unchanged.
"""

from enum import StrEnum
from typing import Final

import msgspec
from psycopg import Connection, Cursor, errors
from psycopg.rows import DictRow
from psycopg.sql import Identifier

from recovery_journal.domain.errors import SettingRefused


class Durability(StrEnum):
    """When a write counts as done."""

    FULL = "full"
    """Once it is on the server's disk: it survives a crash of the server."""
    RELAXED = "relaxed"
    """Before that: a crash of the server may lose what was acknowledged in its last second."""


SYNCHRONOUS_COMMIT: Final = {Durability.FULL: "on", Durability.RELAXED: "off"}

# A session may set these. Settings that this version of the server does not know are left out.
PINNED: Final = {
    # The meaning of the journal's statements.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "check_function_bodies": "on",
    "default_table_access_method": "heap",
    "plpgsql.extra_errors": "none",
    "exit_on_error": "off",
    "row_security": "off",  # a policy raises an error in place of hiding rows from us
    "restrict_nonsystem_relation_kind": "",
    "quote_all_identifiers": "off",
    # The form of values on their way to the client.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "client_min_messages": "warning",
    # Time limits: the journal's, and no others.
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # Compiling one of our short statements takes many times as long as running it.
    "jit": "off",
}

# A role's own limit of a millisecond may end a session before the statement that pins ours. These
# are passed when the session is started a second time, each from the version of the server on that
# knows it: an older one would refuse it there.
LIMITS_AT_START: Final = {
    "statement_timeout": 14,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}

# Only a superuser may set these, also for another role, which then cannot set them back.
REQUIRED: Final = {
    "session_replication_role": "origin",  # otherwise foreign keys and triggers are switched off
    "zero_damaged_pages": "off",  # otherwise a damaged page reads as an empty one
    "ignore_checksum_failure": "off",
}

# A stronger promise of the server is kept. Fully qualified, so that no search path decides.
PIN: Final = """
SELECT name,
    CASE
        WHEN name OPERATOR(pg_catalog.=) 'synchronous_commit'::pg_catalog.text
            AND value OPERATOR(pg_catalog.=) 'on'::pg_catalog.text
            AND pg_catalog.current_setting(name) OPERATOR(pg_catalog.=)
                'remote_apply'::pg_catalog.text
        THEN value
        ELSE pg_catalog.set_config(name, value, false)
    END,
    pg_catalog.pg_backend_pid() AS backend_id
FROM pg_catalog.jsonb_each_text(%(pinned)s::pg_catalog.jsonb) AS setting(name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL
"""

FOUND: Final = """
SELECT name, pg_catalog.current_setting(name, true) AS found,
    pg_catalog.current_setting('is_superuser') AS is_superuser
FROM pg_catalog.unnest(%(names)s::pg_catalog.text[]) AS required(name)
"""

SET: Final = "SELECT pg_catalog.set_config(%(name)s, %(value)s, false)"


class SessionSettings:
    """The settings of one database's sessions: those pinned for all, and these."""

    def __init__(self, schema: str, durability: Durability, **timeouts_s: float) -> None:
        """`timeouts_s` are named as the server names them, in seconds."""
        self.pinned = {
            **PINNED,
            "search_path": f"{Identifier(schema).as_string(None)}, pg_temp",
            "synchronous_commit": SYNCHRONOUS_COMMIT[durability],
            **{name: f"{round(limit_s * 1000)}ms" for name, limit_s in timeouts_s.items()},
        }

    def apply(self, connection: Connection[DictRow]) -> int:
        """Set a session up; return which backend answered. Raises `SettingRefused` where a setting
        that only a superuser may change has not the required value, and psycopg's errors."""
        pinned = msgspec.json.encode(self.pinned).decode()
        row = connection.execute(PIN, {"pinned": pinned}).fetchone()
        assert row is not None
        backend_id: int = row["backend_id"]
        for row in connection.execute(FOUND, {"names": list(REQUIRED)}).fetchall():
            # A reload of the server's configuration does not change what a session has set itself.
            if row["is_superuser"] == "on" or row["found"] != REQUIRED[row["name"]]:
                _require(connection, row["name"], row["found"])
        return backend_id


def without_limits(options: str, server_version: int) -> str:
    """The `options` for libpq under which no limit of the role or the database ends the session
    before ours are set."""
    names = (name for name, since in LIMITS_AT_START.items() if server_version >= since * 10_000)
    return " ".join((options, *(f"-c {name}=0" for name in names))).strip()


def changed_since(cursor: Cursor[DictRow]) -> list[tuple[str, str]]:
    """The required settings that a reload of the server's configuration has changed in this
    session, with their present values."""
    rows = cursor.execute(FOUND, {"names": list(REQUIRED)}).fetchall()
    return [(row["name"], row["found"]) for row in rows if row["found"] != REQUIRED[row["name"]]]


def _require(connection: Connection[DictRow], name: str, found: str) -> None:
    try:
        connection.execute(SET, {"name": name, "value": REQUIRED[name]})
    except errors.InsufficientPrivilege as error:
        raise SettingRefused(name, found=found, needed=REQUIRED[name]) from error
