"""From an event to the call of a function that waited for it.

The events are SIGKILL to the worker that held the attempt, and `ReadyForDispatch`.
"""

import random
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Final

import psutil

import recovery_journal as rj
from recovery_journal.domain.events import LeaseExpired, ReadyForDispatch
from scripts.benchmark.crew import Crew, crew_at
from scripts.benchmark.measuring import Line, percentiles
from scripts.benchmark.processes import core_share

FASTEST: Final = rj.Limits(session_grace_s=0.02, session_poll_s=0.01)
"""As docs/how-to/detect-dead-workers-faster.md has it."""

LONGEST_PAUSE_S: Final = 0.3


def measure_detect(dsn: str, options: Namespace) -> Iterator[Line]:
    """From SIGKILL of a worker to its function running on another one, in seconds, with the default
    limits and with the fastest ones."""
    line: Line = {"kills": options.kills}
    for name, limits in {"default": rj.Limits(), "fast": FASTEST}.items():
        took = _kills(dsn, limits, options.kills)
        names = {f"p50_{name}_s": 50, f"p95_{name}_s": 95, f"max_{name}_s": 100}
        line |= percentiles(took, names, digits=3)
    yield line


def _kills(dsn: str, limits: rj.Limits, kill_count: int) -> list[float]:
    """The seconds of each. Two workers: one is killed at work, the other waits."""
    pauses = random.Random(1)  # noqa: S311 - so that kills come anywhere between two polls
    with crew_at(dsn, limits) as crew:
        crew.start_sweeper()
        for number in range(2):
            crew.start_worker(f"w-{number}")
        crew.await_workers(2)
        took = []
        for number in range(kill_count):
            took.append(_kill_one(crew, f"held {number}", pauses.uniform(0, LONGEST_PAUSE_S)))
            crew.start_worker(f"w-{number + 2}")
            crew.await_workers(2)
    return took


def _kill_one(crew: Crew, attempt_id: str, pause_s: float) -> float:
    crew.make_ready(attempt_id)
    pid, _ = crew.await_call(attempt_id, 1)
    # A lock that no sweeper has seen held says nothing when it is gone.
    time.sleep(crew.journal.limits.session_poll_s + pause_s)
    killed_at = crew.kill(pid)
    other, called_at = crew.await_call(attempt_id, 2)
    # No TTL was waited for.
    events = [entry.event for entry in crew.journal.history(attempt_id)]
    losses = [event.loss for event in events if isinstance(event, LeaseExpired)]
    if losses != [rj.LossReason.HANDED_BACK, rj.LossReason.SESSION_LOST]:
        raise AssertionError(f"attempt {attempt_id} was lost by {losses}")
    if other == pid:
        raise AssertionError(f"attempt {attempt_id} ran again on the worker that was killed")
    return called_at - killed_at


ASLEEP_S: Final = 2.0  # the longest pause of a worker that is notified
SHORTEST_WAKE_PAUSE_S: Final = 0.1
LONGEST_WAKE_PAUSE_S: Final = 0.4
FALLING_ASLEEP_S: Final = 5.0


def measure_wake(dsn: str, options: Namespace) -> Iterator[Line]:
    """From the time of `ReadyForDispatch` to the call of a sleeping worker's function, and the
    share of a core that the server uses for idle workers and a sweeper."""
    took = _wakes(dsn, options.wakes)
    share = _idle_core_share(dsn, options.workers, options.idle_seconds)
    yield {
        "wakes": options.wakes,
        **percentiles(took, {"p50_ms": 50, "p99_ms": 99, "max_ms": 100}, digits=1),
        "idle_workers": options.workers,
        "idle_s": options.idle_seconds,
        "idle_core_share": None if share is None else round(share, 4),
    }


def _wakes(dsn: str, wake_count: int) -> list[float]:
    """Milliseconds, with a worker whose every pause is as long as its longest, so that only a
    notification wakes it."""
    pauses = random.Random(1)  # noqa: S311 - so that nothing falls into step
    with crew_at(dsn) as crew:
        crew.start_worker("w-1", shortest_pause_s=ASLEEP_S)
        crew.await_workers(1)
        return [
            1000
            * _wake(
                crew, f"wake {number}", pauses.uniform(SHORTEST_WAKE_PAUSE_S, LONGEST_WAKE_PAUSE_S)
            )
            for number in range(wake_count)
        ]


def _wake(crew: Crew, attempt_id: str, pause_s: float) -> float:
    """The event's time is the database's and a little before its commit; the call's is this
    host's, which must be the server's host."""
    time.sleep(pause_s)
    crew.make_ready(attempt_id)
    _, called_at = crew.await_call(attempt_id, 1)
    (ready_at,) = (
        entry.recorded_at.timestamp()
        for entry in crew.journal.history(attempt_id)
        if isinstance(entry.event, ReadyForDispatch)
    )
    return called_at - ready_at


def _idle_core_share(dsn: str, worker_count: int, idle_s: float) -> float | None:
    """Processor time of all the server's processes, for each second of an idle fleet; None where
    they cannot be seen from here."""
    with crew_at(dsn) as crew:
        crew.start_sweeper()
        for number in range(worker_count):
            crew.start_worker(f"w-{number}")
        crew.await_workers(worker_count)
        time.sleep(FALLING_ASLEEP_S)
        try:
            backend = psutil.Process(crew.journal.database.connection().info.backend_pid)
            server = backend.parent() if "postgres" in backend.name() else None
        except psutil.Error:
            return None
        if server is None:
            return None
        return core_share(lambda: [server, *server.children(recursive=True)], idle_s)
