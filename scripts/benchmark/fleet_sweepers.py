"""Many sweepers over one mass crash: their throughput beside two, and their waits for locks."""

import threading
import time
from argparse import Namespace
from functools import partial
from multiprocessing.synchronize import Event
from statistics import median
from typing import Final, NamedTuple

from recovery_journal.domain.errors import Retry
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.sweeper import Sweeper
from scripts.benchmark.crowd import Begin, Crowd
from scripts.benchmark.mass_crash import LIMITS
from scripts.benchmark.measuring import Line, fresh_schema, one_row
from scripts.benchmark.watched_server import WatchedServer
from scripts.histories.lost import fill_lost

FEW: Final = 2

COUNT: Final = """
SELECT count(*) AS ready_count, count(DISTINCT originator_id) AS attempt_count
FROM journal_events
WHERE topic = 'ready-for-dispatch'
"""


class Sweeping(NamedTuple):
    """How long it took, the most that waited at a moment, and how often a sweep was retried."""

    seconds: float
    most: dict[str, int]
    retry_count: int


def measure_sweepers(server: WatchedServer, options: Namespace) -> Line:
    """Leases a second that many sweepers recover after one mass crash, beside two; waits for locks
    as seen in samples every 50 ms. Each lease is recovered once, which is checked."""
    lease_count, rounds = options.leases[0], options.rounds or 3
    few, many = [], []
    for _ in range(rounds):
        few.append(_sweep_all(server, lease_count, FEW))
        many.append(_sweep_all(server, lease_count, options.sweepers))
    few_s, many_s = (median(it.seconds for it in swept) for swept in (few, many))
    lock_waits = sum(it.most["samples_with_lock_waits"] for it in many)
    return {
        "case": "fleet-sweepers",
        "unit": "leases/s",
        "leases": lease_count,
        "rounds": rounds,
        "sweepers": options.sweepers,
        "many": round(lease_count / many_s),
        "two": round(lease_count / few_s),
        "ratio_two": round(few_s / many_s, 3),
        "most_lock_waits": max(it.most["lock_waits"] for it in many),
        "lock_wait_share": round(lock_waits / max(sum(it.most["samples"] for it in many), 1), 3),
        "most_latch_waits": max(it.most["latch_waits"] for it in many),
        "retries": sum(it.retry_count for it in many),
        "deadlocks": server.deadlocks(),
    }


def _sweep_all(server: WatchedServer, lease_count: int, sweeper_count: int) -> Sweeping:
    with fresh_schema(server.dsn) as database:
        fill_lost(database, lease_count)
        sweep = partial(_sweep, server.dsn, database.schema)
        with Crowd([sweep] * sweeper_count, "fork") as crowd:
            begun = crowd.begin()
            with server.watched() as most:
                results = crowd.results()
        found = one_row(database, COUNT)
        assert found == {"ready_count": lease_count, "attempt_count": lease_count}, found
        last_at = max(at for at, _ in results)
        return Sweeping(last_at - begun, most, sum(retries for _, retries in results))


def _sweep(dsn: str, schema: str, begin: Begin) -> tuple[float, int]:
    journal = Journal(Database(dsn, schema), limits=LIMITS)
    journal.reader.last_position()  # connects
    last_at, retries = 0.0, 0
    begin()
    while True:
        try:
            if not journal.sweep():
                return last_at, retries
            last_at = time.monotonic()
        except Retry:
            retries += 1


def sweep_until(is_over: Event, limits: Limits, dsn: str, schema: str, begin: Begin) -> None:
    """The process of a sweeper, until it is over."""
    sweeper = Sweeper(Journal(Database(dsn, schema), limits=limits))
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    begin()
    is_over.wait()
    sweeper.stop()
    thread.join()
