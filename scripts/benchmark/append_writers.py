"""Who appends in the benchmark of appends: one event at a time, durable when the call returns."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias
from uuid import uuid4

import msgspec
import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from msgspec.structs import replace
from psycopg import sql

from recovery_journal.log.application import JournalApplication
from recovery_journal.log.mapper import decode
from recovery_journal.postgres.database import Database

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""

Append: TypeAlias = Callable[[str, int], object]
Open: TypeAlias = Callable[[str, str], Append]

TAG: Final = "dispatched"
STATE: Final = msgspec.json.encode(
    {
        "type": TAG,
        "originator_id": "attempt",
        "originator_version": 1,
        "event_id": uuid4().hex,
        "run_id": "run-0123456789",
        "recorded_by": {
            "role": "worker",
            "host": "host-1",
            "pid": 12345,
            "program": "recovery-journal 0.1.0",
            "name": None,
        },
        "reason": "",
        "trace_id": None,
        "recovery_no": 1,
        "holder": {
            "worker_id": "worker-1",
            "incarnation": {
                "host": "host-1",
                "boot_id": uuid4().hex,
                "pid": 12345,
                "started": "100.5",
            },
        },
        "fence": {"epoch": 123456, "lease_id": uuid4().hex, "native": None},
        "ttl_s": 30.0,
        "dispatch_id": uuid4().hex,
    }
)
EVENT: Final = decode(attempt_id="attempt", version=1, tag=TAG, state=STATE, position=None)


def ours(dsn: str, schema: str) -> Append:
    """The whole way: the event is encoded, appended, and a lost reply would be looked into."""
    application = JournalApplication(Database(dsn, schema))

    def append(stream: str, version: int) -> object:
        event = replace(EVENT, originator_id=stream, originator_version=version)
        return application.append([event])

    return append


def bare_psycopg(dsn: str, schema: str) -> Append:
    """One prepared INSERT on one autocommit connection; the state is encoded beforehand."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))

    def append(stream: str, version: int) -> object:
        return connection.execute(INSERT, (stream, version, TAG, STATE), prepare=True).fetchone()

    return append


def library(
    dsn: str, schema: str, *, pool_size: int = 1, enable_db_functions: bool = False
) -> Append:
    """The library's own recorder, with its lock, its notification and its pool.

    With its database functions it notifies without the lock. That is faster, and it lets a reader
    pass over an event that is committed late.
    """
    recorder = library_recorder(
        dsn, schema, pool_size=pool_size, enable_db_functions=enable_db_functions
    )

    def append(stream: str, version: int) -> object:
        return recorder.insert_events([StoredEvent(stream, version, TAG, STATE)])

    return append


def library_recorder(
    dsn: str, schema: str, *, pool_size: int = 1, enable_db_functions: bool = False
) -> PostgresApplicationRecorder:
    """The recorder on the journal's table."""
    with psycopg.connect(dsn) as connection:
        where = connection.info
        datastore = PostgresDatastore(
            dbname=where.dbname,
            host=where.host,
            port=where.port,
            user=where.user,
            password=where.password,
            schema=schema,
            pool_size=pool_size,
            originator_id_type="text",
            enable_db_functions=enable_db_functions,
        )
    return PostgresApplicationRecorder(datastore, events_table_name="journal_events")


PROCESSES: Final[dict[str, Open]] = {
    "ours": ours,
    "psycopg": bare_psycopg,
    "library": library,
    "library_functions": partial(library, enable_db_functions=True),
}
"""One in each of many processes."""

THREADS: Final = 8
SHARED: Final[dict[str, Open]] = {
    "ours": ours,
    "library": partial(library, pool_size=THREADS),
    "library_functions": partial(library, pool_size=THREADS, enable_db_functions=True),
}
"""Shared by as many threads of one process; the library's pool has a connection for each."""
