"""Where the time of a recovery goes: one process sweeps a lost fleet, then claims it, alone.

Processor time, so that a busy machine says the same as a calm one, but for its cold caches: what
this process took, and what its server process took, a lease. With `--profile`, the Python
functions that took most of it, by their own time.

    python -m scripts.benchmark.lease_budget [--leases 4000] [--profile]
"""

import argparse
import cProfile
import json
import os
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from scripts.benchmark.__main__ import served
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import fill_lost
from scripts.benchmark.mass_crash import CLAIM_LIMIT, LIMITS

SHOWN: Final = 40
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def measure_budget(dsn: str, lease_count: int, *, is_profiled: bool) -> dict[str, float]:
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
            python_us, server_us = _spent(database, act, lease_count, is_profiled=is_profiled)
            budget |= {f"{name}_python_us": python_us, f"{name}_server_us": server_us}
        return budget


def _spent(
    database: Database, act: Callable[[], int], lease_count: int, *, is_profiled: bool
) -> tuple[float, float]:
    """(own, server's) microseconds a lease, until so many are done."""
    profile = cProfile.Profile()
    server = database.connection().info.backend_pid
    here, there = time.process_time(), _server_s(server)
    if is_profiled:
        profile.enable()
    done = 0
    while done < lease_count:
        done += act()
    profile.disable()
    here, there = time.process_time() - here, _server_s(server) - there
    if is_profiled:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(SHOWN)
    return round(1e6 * here / lease_count, 1), round(1e6 * there / lease_count, 1)


def _server_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=4_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--dsn", default="")
    wanted = parser.parse_args()
    with served(wanted.dsn) as dsn:
        budget = measure_budget(dsn, wanted.leases, is_profiled=wanted.profile)
    sys.stdout.write(json.dumps({"leases": wanted.leases, **budget}) + "\n")


if __name__ == "__main__":
    main()
