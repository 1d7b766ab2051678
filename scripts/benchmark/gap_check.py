"""The cost of a check for gaps for a reader at the head of the log, while no process writes."""

import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Final
from uuid import uuid4

from recovery_journal.log.event_log import EventLog
from recovery_journal.postgres.database import Database, one
from scripts.benchmark.claim_script import STATE, TAG
from scripts.benchmark.measuring import Line, fresh_schema, percentiles

CHECKS: Final = 500

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""


def measure_gap_check(dsn: str, _options: Namespace) -> Iterator[Line]:
    """One whole check for gaps at the head of the log, without writers; a rolled-back insert has
    left a gap before each. In milliseconds.

    Another insert is committed after it, so the gap is below the newest event; the reader queries
    which transactions write, and settles it.
    """
    with fresh_schema(dsn) as database:
        reader = EventLog(database).reader
        # Of another connection: psycopg forgets its prepared statements at a rollback.
        writer = Database(dsn, database.schema)
        times_ms = []
        for number in range(CHECKS):
            head = _leave_gap(writer, f"gap-{uuid4().hex[:8]}-{number}")
            begun = time.perf_counter()
            settled = reader.settled_position()
            times_ms.append((time.perf_counter() - begun) * 1000)
            assert settled == head, f"settled up to {settled}, the head is {head}: another writes"
        writer.close()
    found = percentiles(times_ms, {"p50": 50, "p99": 99}, digits=3)
    yield {"checks": CHECKS, **found}


def _leave_gap(writer: Database, stream: str) -> int:
    connection = writer.connection()
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT, (f"{stream}-lost", 1, TAG, STATE))
    return int(one(connection.execute(INSERT, (stream, 1, TAG, STATE)))["notification_id"])
