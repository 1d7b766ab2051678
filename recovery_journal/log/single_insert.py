"""Inserts one event in a transaction of its own, with libpq's own calls.

A cursor of psycopg takes four times as long in Python, which was most of a process's time for an
append. psycopg still does the waiting, so other threads run meanwhile and an interrupt cancels the
statement.
"""

from typing import Any, Final
from weakref import WeakSet

from eventsourcing.persistence import StoredEvent
from psycopg import Connection
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.generators import execute
from psycopg.postgres import types
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES ($1, $2, $3, $4)
RETURNING notification_id
"""
NAME: Final = b"journal_single_insert"
TYPES: Final = tuple(types[name].oid for name in ("text", "int8", "text", "bytea"))

# Text in binary, because libpq would cut it at a NUL, which the server refuses.
FORMATS: Final = (Format.BINARY, Format.TEXT, Format.BINARY, Format.BINARY)

_prepared: Final[WeakSet[Connection[Any]]] = WeakSet()


def insert_single(connection: Connection[Any], event: StoredEvent) -> int:
    """Insert the event, commit, and return its position. The connection is in autocommit and in no
    transaction. Raises psycopg's errors."""
    values = (
        str(event.originator_id).encode(),
        b"%d" % event.originator_version,
        event.topic.encode(),
        event.state,
    )
    try:
        result = _insert(connection, values)
    except InvalidSqlStatementName:
        # psycopg makes the server forget all prepared statements when it rolls back.
        _prepared.discard(connection)
        result = _insert(connection, values)
    position = result.get_value(0, 0)
    assert position is not None
    return int(position)


def _insert(connection: Connection[Any], values: tuple[bytes, ...]) -> PGresult:
    pgconn = connection.pgconn
    if connection.prepare_threshold is None:  # behind a pooler, where nothing stays prepared
        pgconn.send_query_params(INSERT, values, TYPES, FORMATS)
        return _answer(connection, ExecStatus.TUPLES_OK)
    if connection not in _prepared:
        pgconn.send_prepare(NAME, INSERT, TYPES)
        _answer(connection, ExecStatus.COMMAND_OK)
        _prepared.add(connection)
    pgconn.send_query_prepared(NAME, values, FORMATS)
    return _answer(connection, ExecStatus.TUPLES_OK)


def _answer(connection: Connection[Any], wanted: ExecStatus) -> PGresult:
    result: PGresult = connection.wait(execute(connection.pgconn))[-1]
    if result.status != wanted:
        raise error_from_result(result)
    return result
