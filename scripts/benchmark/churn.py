"""The same leases renewed, lost, recovered and claimed, again and again: what the tables come to.

No vacuum comes in between, as if it were late: what grows here is what dead versions take, and all
that keeps a table small is that the next version of a row finds room on its page.
"""

from typing import Any, Final

from recovery_journal.domain.policy import Policy
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import fill_lost

LEASES: Final = 500
HEARTBEATS: Final = 5
"""Of each lease, between two losses."""
WORKER: Final = "w-1"
LIMITS: Final = Limits(
    grace_s=0.0,
    ttl_s=600.0,
    policy=Policy(crash_loop_count=1_000_000),  # nobody gets on with anything
)
BYTES_PER_MB: Final = 1_000_000
WATCHED: Final = ("leases", "projection_dispatch_ready", "projection_tracking")

# Autovacuum would make the same run come out otherwise, once a minute.
LEAVE_ALONE: Final = "ALTER TABLE {table} SET (autovacuum_enabled = false)"

SIZE: Final = """
SELECT pg_relation_size(%(table)s::regclass) AS table_bytes,
    pg_indexes_size(%(table)s::regclass) AS index_bytes
"""

UPDATES: Final = """
SELECT pg_stat_get_tuples_updated(%(table)s::regclass) AS updates,
    pg_stat_get_tuples_hot_updated(%(table)s::regclass) AS hot_updates
"""


def measure_churn(dsn: str, *, recovery_count: int) -> dict[str, Any]:
    """Sizes before and after in MB, and how many updates no index heard of."""
    with fresh_schema(dsn) as database:
        with database.cursor() as cursor:
            for table in WATCHED:
                cursor.execute(LEAVE_ALONE.format(table=table).encode())
        fill_lost(database, LEASES)
        journal = Journal(database, limits=LIMITS)
        before = _asked(database, SIZE, "leases")
        heartbeats = _Counted(database)
        recoveries = _Counted(database)
        for _ in range(recovery_count):
            with recoveries:
                _recover(journal)
                leases = [claim.lease for claim in _claim(journal)]
            with heartbeats:
                for _ in range(HEARTBEATS):
                    for lease in leases:
                        lease.heartbeat()
            journal.report_lost(worker_id=WORKER, reason="churn")
        after = _asked(database, SIZE, "leases")
        listed = _asked(database, SIZE, "projection_dispatch_ready")
        return {
            "case": "churn",
            "unit": "MB",
            "rows": LEASES,
            "recoveries": LEASES * recovery_count,
            "heartbeats": LEASES * HEARTBEATS * recovery_count,
            "hot_share_heartbeats": heartbeats.hot_share,
            "hot_share_recoveries": recoveries.hot_share,
            "leases_before": _mb(before["table_bytes"]),
            "leases_after": _mb(after["table_bytes"]),
            "lease_indexes_before": _mb(before["index_bytes"]),
            "lease_indexes_after": _mb(after["index_bytes"]),
            "list_after": _mb(listed["table_bytes"]),
            "list_indexes_after": _mb(listed["index_bytes"]),
        }


class _Counted:
    """Counts the updates of lease rows within it, over all the times that it is entered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._updates = 0
        self._hot_updates = 0

    @property
    def hot_share(self) -> float:
        return round(self._hot_updates / max(self._updates, 1), 3)

    def __enter__(self) -> None:
        self._add(-1)

    def __exit__(self, *_error: object) -> None:
        self._add(1)

    def _add(self, sign: int) -> None:
        with self._database.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
        found = _asked(self._database, UPDATES, "leases")
        self._updates += sign * found["updates"]
        self._hot_updates += sign * found["hot_updates"]


def _recover(journal: Journal) -> None:
    while journal.sweep():
        pass


def _claim(journal: Journal) -> list[Any]:
    claims = journal.claim(worker_id=WORKER, limit=LEASES)
    assert len(claims) == LEASES, len(claims)
    return claims


def _asked(database: Database, query: str, table: str) -> dict[str, Any]:
    with database.cursor() as cursor:
        row = cursor.execute(query.encode(), {"table": table}).fetchone()
    assert row is not None
    return row


def _mb(size: int) -> float:
    return round(size / BYTES_PER_MB, 2)
