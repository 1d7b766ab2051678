"""From `ReadyForDispatch` until a sleeping worker's function is called; what sleeping costs."""

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from recovery_journal.domain.events import ReadyForDispatch
from scripts.benchmark.crew import Crew, crew_at

ASLEEP_S: Final = 2.0  # the longest pause of a worker that hears calls
SHORTEST_LULL_S: Final = 0.1
LONGEST_LULL_S: Final = 0.4
FALLING_ASLEEP_S: Final = 5.0


def measure_wake(dsn: str, *, wake_count: int, worker_count: int, idle_s: float) -> dict[str, Any]:
    """Wake one worker again and again; then let a fleet of idle ones be, and a sweeper."""
    with tempfile.TemporaryDirectory(prefix="rj-bench-") as folder:
        took = _wakes(dsn, Path(folder), wake_count)
        share = _idle_core_share(dsn, Path(folder), worker_count, idle_s)
    ordered = sorted(1000 * one for one in took)
    return {
        "case": "wake",
        "unit": "ms from the time of ReadyForDispatch to the function's call",
        "wakes": wake_count,
        "p50_ms": round(statistics.median(ordered), 1),
        "p99_ms": round(ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)], 1),
        "max_ms": round(ordered[-1], 1),
        "idle_workers": worker_count,
        "idle_s": idle_s,
        "idle_core_share": None if share is None else round(share, 4),
    }


def _wakes(dsn: str, folder: Path, wake_count: int) -> list[float]:
    """By a worker whose every pause is as long as its longest, so that only a call wakes it."""
    lulls = random.Random(1)  # noqa: S311 - so that nothing falls into step
    with crew_at(dsn, folder) as crew:
        crew.start_worker("w-1", shortest_pause_s=ASLEEP_S)
        crew.await_workers(1)
        return [
            _wake(crew, f"wake {number}", lulls.uniform(SHORTEST_LULL_S, LONGEST_LULL_S))
            for number in range(wake_count)
        ]


def _wake(crew: Crew, attempt_id: str, lull_s: float) -> float:
    """The event's time is the database's and a little before its commit; the call's is this
    host's, which must be the server's host."""
    time.sleep(lull_s)
    crew.make_ready(attempt_id)
    _, called_at = crew.await_call(attempt_id, 1)
    (ready_at,) = (
        entry.recorded_at.timestamp()
        for entry in crew.journal.history(attempt_id)
        if isinstance(entry.event, ReadyForDispatch)
    )
    return called_at - ready_at


def _idle_core_share(dsn: str, folder: Path, worker_count: int, idle_s: float) -> float | None:
    """Processor time of all the server's processes, for each second of an idle fleet; None where
    they cannot be seen from here."""
    with crew_at(dsn, folder) as crew:
        crew.start_sweeper()
        for number in range(worker_count):
            crew.start_worker(f"w-{number}")
        crew.await_workers(worker_count)
        time.sleep(FALLING_ASLEEP_S)
        begun, before = time.monotonic(), _server_s(crew)
        time.sleep(idle_s)
        after, ended = _server_s(crew), time.monotonic()
    return None if before is None or after is None else (after - before) / (ended - begun)


def _server_s(crew: Crew) -> float | None:
    backend_id = crew.journal.database.connection().info.backend_pid
    try:
        backend = psutil.Process(backend_id)
        server = backend.parent() if "postgres" in backend.name() else None
        if server is None:
            return None
        processes = [server, *server.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in processes)
    except psutil.Error:
        return None
