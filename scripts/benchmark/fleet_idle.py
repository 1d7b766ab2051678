"""A large fleet with nothing to do: waiting workers and sweepers, with their defaults.

Workers are what `Worker.run` is, fifty threads to a process, so that a thousand find room on one
host: the server sees the same sessions and the same statements. What a call costs is measured with
one that nothing stands behind: who comes looks, and finds nothing.
"""

import multiprocessing
import threading
import time
from multiprocessing.synchronize import Event, Semaphore
from typing import Any, Final

from recovery_journal.journal import Journal
from recovery_journal.limits import DEFAULTS
from recovery_journal.postgres.database import Database
from recovery_journal.store.ready_notice import notify_ready
from recovery_journal.worker.worker import Worker
from scripts.benchmark.fleet_server import FleetServer, server_share
from scripts.benchmark.fleet_sweepers import sweep_until
from scripts.benchmark.fresh_schema import fresh_schema

WORKERS_PER_PROCESS: Final = 50
CALLS: Final = 5
CALM_S: Final = 2.0
PATIENCE_S: Final = 180
LOOK_S: Final = 0.5

ASLEEP: Final = """
SELECT count(*) AS count
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'epochs'::regclass AND granted
"""

COMMITS: Final = """
SELECT xact_commit AS count
FROM pg_stat_database
WHERE datname = current_database()
"""

_forking = multiprocessing.get_context("fork")


def measure_idle(
    server: FleetServer, *, worker_count: int, sweeper_count: int, idle_s: float
) -> dict[str, Any]:
    """What the server has to do for them, and what for one call."""
    with fresh_schema(server.dsn) as database:
        is_over, at_work = _forking.Event(), _forking.Semaphore(0)
        given = (server.dsn, database.schema, is_over, at_work)
        shares = [WORKERS_PER_PROCESS] * (worker_count // WORKERS_PER_PROCESS)
        shares += [worker_count % WORKERS_PER_PROCESS] if worker_count % WORKERS_PER_PROCESS else []
        memory_before = server.memory_mb()
        processes = [
            _forking.Process(target=_wait_for_work, args=(*given, share, number))
            for number, share in enumerate(shares)
        ]
        processes += [
            _forking.Process(target=sweep_until, args=(*given[:3], DEFAULTS, at_work))
            for _ in range(sweeper_count)
        ]
        for process in processes:
            process.start()
        try:
            for _ in range(worker_count + sweeper_count):
                assert at_work.acquire(timeout=PATIENCE_S), "not everybody came to work"
            _await_sleep(database, worker_count)
            with server.watched() as most:
                commits = _count(database, COMMITS)
                share = server_share(server, idle_s)
                commits = _count(database, COMMITS) - commits
            memory_mb = server.memory_mb() - memory_before
            call_s = _call_s(server, database, share)
        finally:
            is_over.set()
            for process in processes:
                process.join(PATIENCE_S)
        return {
            "case": "fleet-idle",
            "unit": "share of a core",
            "workers": worker_count,
            "sweepers": sweeper_count,
            "connections": most["clients"],
            "connections_per_worker": round((most["clients"] - sweeper_count) / worker_count, 2),
            "server_mb": round(memory_mb),
            "mb_per_connection": round(memory_mb / max(most["clients"], 1), 2),
            "idle_s": idle_s,
            "idle_core_share": round(share, 4),
            "commits_per_s": round(commits / idle_s),
            "call_core_s": round(call_s, 3),
        }


def _wait_for_work(
    dsn: str, schema: str, is_over: Event, at_work: Semaphore, count: int, number: int
) -> None:
    journal = Journal(Database(dsn, schema))
    workers = [
        Worker(journal, f"w-{number}-{at}", lambda _claim: None, on_event=lambda _notice: None)
        for at in range(count)
    ]

    def run(worker: Worker) -> None:
        at_work.release()
        worker.run()

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    is_over.wait()
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()


def _call_s(server: FleetServer, database: Database, idle_share: float) -> float:
    """Processor time of the server for one call, without what it uses anyway."""
    begun, before = time.monotonic(), server.processor_s()
    for _ in range(CALLS):
        notify_ready(database, 1)
        time.sleep(CALM_S)
    lasted = time.monotonic() - begun
    return max(server.processor_s() - before - idle_share * lasted, 0) / CALLS


def _await_sleep(database: Database, worker_count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while _count(database, ASLEEP) < worker_count:
        assert time.monotonic() < deadline, "not everybody fell asleep"
        time.sleep(LOOK_S)


def _count(database: Database, query: str) -> int:
    with database.cursor() as cursor:
        row = cursor.execute(query.encode()).fetchone()
    assert row is not None
    return int(row["count"])
