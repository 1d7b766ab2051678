"""The processor time of a recovery: one process sweeps a lost fleet, then claims it, alone."""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

import psutil

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from scripts.benchmark.mass_crash import CLAIM_LIMIT, LIMITS
from scripts.benchmark.measuring import Line, fresh_schema
from scripts.histories.lost import fill_lost


def measure_budget(dsn: str, options: Namespace) -> Iterator[Line]:
    """Microseconds a lease of a sweep and of claims in batches, in Python and in the server.

    Processor time, which is the same on a busy machine but for its cold caches: that of this
    process, and that of its server process.
    """
    for lease_count in options.leases:
        with fresh_schema(dsn) as database:
            fill_lost(database, lease_count)
            journal = Journal(database, limits=LIMITS)
            acts: dict[str, Callable[[], int]] = {
                "sweep": lambda: len(journal.sweep()),  # noqa: B023 - called at once
                "claim": lambda: len(journal.claim(worker_id="new-worker", limit=CLAIM_LIMIT)),  # noqa: B023 - likewise
            }
            budget: Line = {}
            for name, act in acts.items():
                python_us, server_us = _spent(database, act, lease_count)
                budget |= {f"{name}_python_us": python_us, f"{name}_server_us": server_us}
            yield {"case": "lease-budget", "unit": "us", "leases": lease_count, **budget}


def _spent(database: Database, act: Callable[[], int], lease_count: int) -> tuple[float, float]:
    """(own, server's) microseconds a lease, until so many are done."""
    processes = psutil.Process(os.getpid()), psutil.Process(database.connection().info.backend_pid)
    before = [sum(one.cpu_times()[:2]) for one in processes]
    begun = time.process_time()
    done = 0
    while done < lease_count:
        done += act()
    own_s = time.process_time() - begun
    server_s = sum(processes[1].cpu_times()[:2]) - before[1]
    return round(1e6 * own_s / lease_count, 1), round(1e6 * server_s / lease_count, 1)
