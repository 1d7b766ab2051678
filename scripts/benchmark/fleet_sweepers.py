"""Many sweepers over one mass crash: their throughput beside two, and whom they wait for."""

import multiprocessing
import statistics
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event, Semaphore
from typing import Any, Final, NamedTuple

from recovery_journal.domain.errors import Retry
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.sweeper import Sweeper
from scripts.benchmark.fleet_server import FleetServer
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import fill_lost
from scripts.benchmark.mass_crash import LIMITS

PATIENCE_S: Final = 300
FEW: Final = 2

COUNT: Final = """
SELECT count(*) AS ready_count, count(DISTINCT originator_id) AS attempt_count
FROM journal_events
WHERE topic = 'ready-for-dispatch'
"""

_forking = multiprocessing.get_context("fork")


class SweepResult(NamedTuple):
    """How long it took, the most that waited at a moment, and what failed and was tried again."""

    seconds: float
    most: dict[str, int]
    retry_count: int


def measure_sweepers(
    server: FleetServer, *, lease_count: int, sweeper_count: int, rounds: int
) -> dict[str, Any]:
    """Leases a second that so many sweepers recover; each is recovered once, which is checked."""
    few: list[SweepResult] = []
    many: list[SweepResult] = []
    for _ in range(rounds):
        few.append(_sweep_all(server, lease_count, FEW))
        many.append(_sweep_all(server, lease_count, sweeper_count))
    few_s, many_s = (statistics.median(it.seconds for it in swept) for swept in (few, many))
    return {
        "case": "fleet-sweepers",
        "unit": "leases/s",
        "leases": lease_count,
        "rounds": rounds,
        "sweepers": sweeper_count,
        "many": round(lease_count / many_s),
        "two": round(lease_count / few_s),
        "ratio_two": round(few_s / many_s, 3),
        "most_lock_waits": max(swept.most["lock_waits"] for swept in many),
        "lock_wait_share": round(
            sum(swept.most["lock_wait_looks"] for swept in many)
            / max(sum(swept.most["looks"] for swept in many), 1),
            3,
        ),
        "most_latch_waits": max(swept.most["latch_waits"] for swept in many),
        "retries": sum(swept.retry_count for swept in many),
        "deadlocks": server.deadlocks(),
    }


def _sweep_all(server: FleetServer, lease_count: int, sweeper_count: int) -> SweepResult:
    with fresh_schema(server.dsn) as database:
        fill_lost(database, lease_count)
        start, answers = _forking.Barrier(sweeper_count + 1), _forking.Queue()
        given = (server.dsn, database.schema, start, answers)
        processes = [_forking.Process(target=_sweep, args=given) for _ in range(sweeper_count)]
        for process in processes:
            process.start()
        start.wait(PATIENCE_S)
        begun = time.monotonic()
        with server.watched() as most:
            told = [answers.get(timeout=PATIENCE_S) for _ in processes]
        for process in processes:
            process.join()
        _require_once(database, lease_count)
        return SweepResult(
            max(last_at for last_at, _ in told) - begun, most, sum(retries for _, retries in told)
        )


def _sweep(dsn: str, schema: str, start: Barrier, answers: "Queue[tuple[float, int]]") -> None:
    journal = Journal(Database(dsn, schema), limits=LIMITS)
    journal.reader.last_position()  # connects
    last_at, retries = 0.0, 0
    start.wait(PATIENCE_S)
    while True:
        try:
            swept = journal.sweep()
        except Retry:
            retries += 1
            continue
        if not swept:
            break
        last_at = time.monotonic()
    answers.put((last_at, retries))


def _require_once(database: Database, lease_count: int) -> None:
    with database.cursor() as cursor:
        found = cursor.execute(COUNT).fetchone()
    assert found == {"ready_count": lease_count, "attempt_count": lease_count}, found


def sweep_until(
    dsn: str, schema: str, is_over: Event, limits: Limits, at_work: Semaphore | None = None
) -> None:
    """The process of a sweeper, which says when it is at work, until it is over."""
    sweeper = Sweeper(Journal(Database(dsn, schema), limits=limits))
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    if at_work is not None:
        at_work.release()
    is_over.wait()
    sweeper.stop()
    thread.join()
