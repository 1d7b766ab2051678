"""A sweep reads neither ended attempts nor those that wait for a person."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest

from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.schema import create_projections
from recovery_journal.recovery.loss import FIND_WORK

ROWS: Final = 20_000
WHEN: Final[dict[str, Any]] = {
    "grace_s": 5.0,
    "up_since": datetime(2026, 1, 1, tzinfo=UTC),
    "ended_locks": [],
    "sweeper_ttl_s": 30.0,
    "version_wait_s": 86_400.0,
    "asking_pace_s": 60.0,
}

RUNS: Final = """
INSERT INTO runs (run_id, kind, input, input_digest)
SELECT 'r-' || n, 'k', '{}', 'd'
FROM generate_series(1, %(rows)s::integer) AS n
"""

LEASES: Final = """
INSERT INTO leases (
    attempt_id, run_id, attempt_no, kind, tenant, priority, code_version, status, version, epoch,
    lease_id, worker_id, host, boot_id, pid, process_started, expires_at, ttl_s, ended_at, ordinal,
    chain, checkpoint_count
)
SELECT 'a-' || n, 'r-' || n, 1, 'k', '', 0, '', %(status)s, 1, n, 'l', 'w', 'h', 'b', 1, '1',
    clock_timestamp() + interval '1 hour', 30, %(ended_at)s, 0, 'c', 0
FROM generate_series(1, %(rows)s::integer) AS n
"""

HEARTBEAT: Final = """
UPDATE leases
SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + interval '1 hour'
"""

HOT: Final = """
SELECT pg_stat_get_xact_tuples_updated('leases'::regclass) AS updates,
    pg_stat_get_xact_tuples_hot_updated('leases'::regclass) AS hot_updates
"""


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    database = Database(server_dsn, schema)
    schemas.create(database, partial(create_projections, database))
    yield database
    database.close()


def filled(database: Database, status: str, ended_at: datetime | None, rows: int = ROWS) -> None:
    given = {"rows": rows, "status": status, "ended_at": ended_at}
    with database.cursor() as cursor:
        cursor.execute(RUNS, given)
        cursor.execute(LEASES, given)
        cursor.execute("VACUUM (ANALYZE) leases")


@pytest.mark.parametrize(
    ("status", "ended_at"),
    [("completed", datetime(2026, 1, 2, tzinfo=UTC)), ("quarantined", None), ("waiting", None)],
)
def test_a_sweep_does_not_read_attempts_that_cannot_be_lost(
    database: Database, status: str, ended_at: datetime | None
) -> None:
    filled(database, status, ended_at)

    with database.cursor() as cursor:
        row = cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {FIND_WORK}", WHEN
        ).fetchone()

    assert row is not None
    plan = row["QUERY PLAN"][0]["Plan"]
    assert "leases_watched" in json.dumps(plan)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 10


def test_no_index_hears_of_a_heartbeat(database: Database) -> None:
    filled(database, "held", None, rows=50)

    with database.transaction() as cursor:
        cursor.execute(HEARTBEAT)
        found = cursor.execute(HOT).fetchone()

    assert found == {"updates": 50, "hot_updates": 50}
