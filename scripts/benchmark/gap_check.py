"""What looking for gaps costs a reader at the head of the log while nobody writes."""

import statistics
import time
from typing import Final
from uuid import uuid4

from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.database import Database
from scripts.benchmark.append_writers import INSERT, STATE, TAG

CHECKS: Final = 500


def gap_checks_ms(dsn: str, schema: str) -> dict[str, float]:
    """Each check is a whole one: an insert has been rolled back and another committed, so there is
    a gap below the newest event; the reader asks who writes, and settles it."""
    database = Database(dsn, schema)
    reader = JournalApplication(database).reader
    # Of another connection: psycopg forgets its prepared statements at a rollback.
    writer = Database(dsn, schema)
    times_ms = []
    for number in range(CHECKS):
        head = _leave_gap(writer, f"gap-{uuid4().hex[:8]}-{number}")
        begun = time.perf_counter()
        settled = reader.settled_position()
        times_ms.append((time.perf_counter() - begun) * 1000)
        assert settled == head, f"settled up to {settled}, the head is {head}: somebody writes"
    database.close()
    writer.close()
    return {
        "gap_check_ms": round(statistics.median(times_ms), 3),
        "gap_check_p99_ms": round(statistics.quantiles(times_ms, n=100)[98], 3),
    }


def _leave_gap(writer: Database, stream: str) -> int:
    connection = writer.connection()
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT, (f"{stream}-lost", 1, TAG, STATE))
    row = connection.execute(INSERT, (stream, 1, TAG, STATE)).fetchone()
    assert row is not None
    head: int = row["notification_id"]
    return head
