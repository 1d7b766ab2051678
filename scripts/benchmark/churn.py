"""The same leases renewed, lost, recovered and claimed repeatedly: the sizes of their tables."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import recovery_journal as rj
from recovery_journal.postgres.database import Database
from scripts.benchmark.measuring import BYTES_PER_MB, Line, fresh_schema, one_row
from scripts.histories.lost import fill_lost

LEASES: Final = 500
HEARTBEATS: Final = 5
"""Of each lease, between two losses."""
WORKER: Final = "w-1"
LIMITS: Final = rj.Limits(
    grace_s=0.0,
    ttl_s=600.0,
    policy=rj.Policy(crash_loop_count=1_000_000),  # no attempt makes progress
)
WATCHED: Final = ("leases", "projection_dispatch_ready", "projection_tracking")

# Autovacuum would make the same run end otherwise, once a minute.
NO_VACUUM: Final = "ALTER TABLE {table} SET (autovacuum_enabled = false)"

SIZES: Final = """
SELECT pg_relation_size('leases') AS leases,
    pg_indexes_size('leases') AS lease_indexes,
    pg_relation_size('projection_dispatch_ready') AS list,
    pg_indexes_size('projection_dispatch_ready') AS list_indexes
"""

UPDATES: Final = """
SELECT pg_stat_get_tuples_updated('leases'::regclass) AS updates,
    pg_stat_get_tuples_hot_updated('leases'::regclass) AS hot_updates
"""


def measure_churn(dsn: str, options: Namespace) -> Iterator[Line]:
    """The same leases renewed, lost and claimed repeatedly: the sizes of the tables in MB without
    any vacuum, and the share of updates that change no index.

    No vacuum comes in between, as if it were late. So all growth is dead versions of rows, and the
    only thing that keeps a table small is room for the next version of a row on its page.
    """
    with fresh_schema(dsn) as database:
        with database.cursor() as cursor:
            for table in WATCHED:
                cursor.execute(NO_VACUUM.format(table=table).encode())
        fill_lost(database, LEASES)
        journal = rj.Journal(database, limits=LIMITS)
        before = _sizes(database)
        heartbeats: Counter[str] = Counter()
        recoveries: Counter[str] = Counter()
        for _ in range(options.recoveries):
            with _counting(database, recoveries):
                while journal.sweep():
                    pass
                claims = journal.claim(worker_id=WORKER, limit=LEASES)
                assert len(claims) == LEASES, len(claims)
            with _counting(database, heartbeats):
                for _ in range(HEARTBEATS):
                    for claim in claims:
                        claim.lease.heartbeat()
            journal.report_lost(worker_id=WORKER, reason="churn")
        after = _sizes(database)
        yield {
            "rows": LEASES,
            "recoveries": LEASES * options.recoveries,
            "heartbeats": LEASES * HEARTBEATS * options.recoveries,
            "hot_share_heartbeats": _hot_share(heartbeats),
            "hot_share_recoveries": _hot_share(recoveries),
            "leases_before": before["leases"],
            "leases_after": after["leases"],
            "lease_indexes_before": before["lease_indexes"],
            "lease_indexes_after": after["lease_indexes"],
            "list_after": after["list"],
            "list_indexes_after": after["list_indexes"],
        }


@contextmanager
def _counting(database: Database, counts: Counter[str]) -> Iterator[None]:
    """Count the updates of lease rows within."""
    counts.subtract(_updates(database))
    yield
    counts.update(_updates(database))


def _updates(database: Database) -> dict[str, int]:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    return one_row(database, UPDATES)


def _hot_share(counts: Counter[str]) -> float:
    return round(counts["hot_updates"] / max(counts["updates"], 1), 3)


def _sizes(database: Database) -> dict[str, Any]:
    found = one_row(database, SIZES)
    return {name: round(size / BYTES_PER_MB, 2) for name, size in found.items()}
