"""Where the time of a recovery goes: one process sweeps a lost fleet, then claims it, alone.

Processor time, so that a busy machine says the same as a calm one, but for its cold caches: what
this process took, and what its server process took, a lease.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import fill_lost
from scripts.benchmark.mass_crash import CLAIM_LIMIT, LIMITS

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def measure_budget(dsn: str, *, lease_count: int) -> dict[str, Any]:
    """Microseconds a lease of a sweep and of claims in batches, in Python and in the server."""
    with fresh_schema(dsn) as database:
        fill_lost(database, lease_count)
        journal = Journal(database, limits=LIMITS)

        def sweep() -> int:
            return len(journal.sweep())

        def claim() -> int:
            claims = journal.claim(worker_id="new-worker", limit=CLAIM_LIMIT)
            return len(claims)

        budget: dict[str, float] = {}
        for name, act in (("sweep", sweep), ("claim", claim)):
            python_us, server_us = _spent(database, act, lease_count)
            budget |= {f"{name}_python_us": python_us, f"{name}_server_us": server_us}
        return {"case": "lease-budget", "unit": "us", "leases": lease_count, **budget}


def _spent(database: Database, act: Callable[[], int], lease_count: int) -> tuple[float, float]:
    """(own, server's) microseconds a lease, until so many are done."""
    server = database.connection().info.backend_pid
    here, there = time.process_time(), _server_s(server)
    done = 0
    while done < lease_count:
        done += act()
    here, there = time.process_time() - here, _server_s(server) - there
    return round(1e6 * here / lease_count, 1), round(1e6 * there / lease_count, 1)


def _server_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
