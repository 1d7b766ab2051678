"""What a check for gaps costs a reader at the head of the log, while no process writes."""

import statistics
import time
from typing import Any, Final
from uuid import uuid4

from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.database import Database
from scripts.benchmark.claim_script import STATE, TAG
from scripts.benchmark.fresh_schema import fresh_schema

CHECKS: Final = 500

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""


def measure_gap_check(dsn: str) -> dict[str, Any]:
    """Median and 99th percentile of whole checks, in milliseconds.

    Before each check an insert is rolled back and another one committed, so there is a gap below
    the newest event; the reader asks which transactions write, and settles it.
    """
    with fresh_schema(dsn) as database:
        reader = JournalApplication(database).reader
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
    return {
        "case": "gap-check",
        "unit": "ms",
        "checks": CHECKS,
        "p50": round(statistics.median(times_ms), 3),
        "p99": round(statistics.quantiles(times_ms, n=100)[98], 3),
    }


def _leave_gap(writer: Database, stream: str) -> int:
    connection = writer.connection()
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT, (f"{stream}-lost", 1, TAG, STATE))
    row = connection.execute(INSERT, (stream, 1, TAG, STATE)).fetchone()
    assert row is not None
    head: int = row["notification_id"]
    return head
