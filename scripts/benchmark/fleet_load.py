"""Large fleets: waiting workers and sweepers with nothing to do, and many sweepers at once."""

import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import ClassVar, Final, NamedTuple

import psycopg
from psycopg.rows import dict_row

import recovery_journal as rj
from recovery_journal.limits import DEFAULTS
from recovery_journal.postgres.database import Database
from recovery_journal.store.ready_notice import notify_ready
from scripts.benchmark.mass_crash import connected
from scripts.benchmark.measuring import Line, fresh_schema, one_row, wait_until
from scripts.benchmark.processes import Crowd, Living, Signals, core_share, memory_mb, processor_s
from scripts.harness.server import Server
from scripts.histories.lost import fill_lost

SAMPLE_S: Final = 0.05
SPARE_CONNECTIONS: Final = 50
"""For sweepers, the bench itself, and what the server keeps for its owner."""

ACTIVITY: Final = """
SELECT count(*) AS clients,
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS lock_waits,
    count(*) FILTER (WHERE wait_event_type = 'LWLock') AS latch_waits
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class WatchedServer(Server):
    """With its defaults, but for the number of connections."""

    stop_mode: ClassVar = "fast"

    def __init__(self, folder: Path, *, connections: int) -> None:
        super().__init__(folder, f"max_connections = {connections + SPARE_CONNECTIONS}\n")

    def deadlocks(self) -> int:
        """How many there have been."""
        [row] = self.rows(DEADLOCKS)
        return int(row["deadlocks"])

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        """Meanwhile, the most clients, and the most that waited at one moment, and for what."""
        most: Counter[str] = Counter()
        is_over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(most, is_over))
        watcher.start()
        try:
            yield most
        finally:
            is_over.set()
            watcher.join()

    def _watch(self, most: Counter[str], is_over: threading.Event) -> None:
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            while not is_over.wait(SAMPLE_S):
                row = connection.execute(ACTIVITY).fetchone() or {}
                for name, count in row.items():
                    most[name] = max(most[name], count)
                most["samples"] += 1
                most["samples_with_lock_waits"] += bool(row["lock_waits"])


WORKERS_PER_PROCESS: Final = 50
NOTICES: Final = 5
PAUSE_S: Final = 2.0
POLL_S: Final = 0.5

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


def measure_idle(server: WatchedServer, options: Namespace) -> Line:
    """The cost of waiting workers and sweepers for the server, and of one notification that an
    attempt is ready (`call_core_s`, seconds of a core).

    Workers are what `Worker.run` is, fifty threads to a process, so that a thousand find room on
    one host: the server sees the same sessions and the same statements. The notification has no
    attempt behind it: each worker queries, and finds nothing.
    """
    worker_count, sweeper_count = options.fleet_workers, options.sweepers
    whole, rest = divmod(worker_count, WORKERS_PER_PROCESS)
    shares = [WORKERS_PER_PROCESS] * whole + [rest] * bool(rest)
    with fresh_schema(server.dsn) as database:
        given = (server.dsn, database.schema)
        jobs = [
            *(partial(_wait_for_work, *it, *given) for it in enumerate(shares)),
            *[partial(sweep_until_over, DEFAULTS, *given)] * sweeper_count,
        ]
        processes = server.cluster.processes
        memory_before = memory_mb(processes())
        with Crowd(jobs, "fork") as crowd:
            crowd.begin()
            wait_until(
                lambda: bool(one_row(database, ASLEEP)["count"] >= worker_count),
                f"{worker_count} workers to fall asleep",
                pause_s=POLL_S,
            )
            with server.watched() as most:
                commits = one_row(database, COMMITS)["count"]
                share = core_share(processes, options.idle_seconds)
                commits = one_row(database, COMMITS)["count"] - commits
            used_mb = memory_mb(processes()) - memory_before
            notice_s = _notice_s(processes, database, share)
            crowd.end()
        return {
            "case": "fleet-idle",
            "unit": "share of a core",
            "workers": worker_count,
            "sweepers": sweeper_count,
            "connections": most["clients"],
            "connections_per_worker": round((most["clients"] - sweeper_count) / worker_count, 2),
            "server_mb": round(used_mb),
            "mb_per_connection": round(used_mb / max(most["clients"], 1), 2),
            "idle_s": options.idle_seconds,
            "idle_core_share": round(share, 4),
            "commits_per_s": round(commits / options.idle_seconds),
            "call_core_s": round(notice_s, 3),
        }


def _wait_for_work(number: int, count: int, dsn: str, schema: str, signals: Signals) -> None:
    journal = rj.Journal(Database(dsn, schema))
    workers = [
        rj.Worker(journal, f"w-{number}-{at}", lambda _claim: None, on_event=lambda _notice: None)
        for at in range(count)
    ]
    _run_until_over(signals, *workers)


def _notice_s(processes: Living, database: Database, idle_share: float) -> float:
    """Processor time of the server for one notification, without what it uses anyway."""
    begun, before = time.monotonic(), processor_s(processes())
    for _ in range(NOTICES):
        notify_ready(database, 1)
        time.sleep(PAUSE_S)
    lasted = time.monotonic() - begun
    return max(processor_s(processes()) - before - idle_share * lasted, 0) / NOTICES


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


def _sweep(dsn: str, schema: str, signals: Signals) -> tuple[float, int]:
    journal = connected(Database(dsn, schema))
    last_at, retries = 0.0, 0
    signals.begin()
    while True:
        try:
            if not journal.sweep():
                return last_at, retries
            last_at = time.monotonic()
        except rj.Retry:
            retries += 1


def sweep_until_over(limits: rj.Limits, dsn: str, schema: str, signals: Signals) -> None:
    """The process of a sweeper, until it is over."""
    _run_until_over(signals, rj.Sweeper(rj.Journal(Database(dsn, schema), limits=limits)))


def _run_until_over(signals: Signals, *loops: rj.Sweeper | rj.Worker) -> None:
    """Run each in a thread of its own."""
    with ThreadPoolExecutor(len(loops)) as threads:
        runs = [threads.submit(loop.run) for loop in loops]
        signals.begin()
        signals.is_over.wait()
        for loop in loops:
            loop.stop()
        for run in runs:
            run.result()
