"""From SIGKILL to a worker until its attempt runs on another one, which was waiting."""

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import recovery_journal as rj
from recovery_journal.domain.events import LeaseExpired
from scripts.benchmark.crew import Crew, crew_at

FASTEST: Final = rj.Limits(session_grace_s=0.02, session_poll_s=0.01)
"""As docs/how-to/detect-dead-workers-faster.md has it."""

LONGEST_LULL_S: Final = 0.3


def measure_detect(dsn: str, *, kill_count: int) -> dict[str, Any]:
    """Kill that many workers at work with the default limits, and with the fastest ones."""
    with tempfile.TemporaryDirectory(prefix="rj-bench-") as folder:
        default, fast = (
            _kills(dsn, Path(folder), limits, kill_count) for limits in (rj.Limits(), FASTEST)
        )
    return {
        "case": "detect",
        "unit": "s from SIGKILL to the function's call elsewhere",
        "kills": kill_count,
        **_shares("default", default),
        **_shares("fast", fast),
    }


def _kills(dsn: str, folder: Path, limits: rj.Limits, kill_count: int) -> list[float]:
    """How long each took. Two workers: one is killed at work, the other waits."""
    lulls = random.Random(1)  # noqa: S311 - so that kills fall anywhere between two looks
    with crew_at(dsn, folder, limits) as crew:
        crew.start_sweeper()
        for number in range(2):
            crew.start_worker(f"w-{number}")
        crew.await_workers(2)
        took = []
        for number in range(kill_count):
            took.append(_kill_one(crew, f"held {number}", lulls.uniform(0, LONGEST_LULL_S)))
            crew.start_worker(f"w-{number + 2}")
            crew.await_workers(2)
    return took


def _kill_one(crew: Crew, attempt_id: str, lull_s: float) -> float:
    crew.make_ready(attempt_id)
    pid, _ = crew.await_call(attempt_id, 1)
    # A lock that no sweeper has seen held says nothing when it is gone.
    time.sleep(crew.journal.limits.session_poll_s + lull_s)
    killed_at = crew.kill(pid)
    other, called_at = crew.await_call(attempt_id, 2)
    _require_session_lost(crew, attempt_id)
    if other == pid:
        raise AssertionError(f"attempt {attempt_id} ran again on the worker that was killed")
    return called_at - killed_at


def _require_session_lost(crew: Crew, attempt_id: str) -> None:
    """That no TTL was waited for."""
    events = [entry.event for entry in crew.journal.history(attempt_id)]
    losses = [event.loss for event in events if isinstance(event, LeaseExpired)]
    if losses != [rj.LossReason.HANDED_BACK, rj.LossReason.SESSION_LOST]:
        raise AssertionError(f"attempt {attempt_id} was lost by {losses}")


def _shares(name: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"p50_{name}_s": round(statistics.median(ordered), 3),
        f"p95_{name}_s": round(ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)], 3),
        f"max_{name}_s": round(ordered[-1], 3),
    }
