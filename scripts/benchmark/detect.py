"""From SIGKILL to a worker until its attempt runs on another one, which was waiting."""

import random
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import recovery_journal as rj
from recovery_journal.domain.events import LeaseExpired
from scripts.benchmark.crew import Crew, crew_at
from scripts.benchmark.measuring import Line, percentiles

FASTEST: Final = rj.Limits(session_grace_s=0.02, session_poll_s=0.01)
"""As docs/how-to/detect-dead-workers-faster.md has it."""

LONGEST_PAUSE_S: Final = 0.3


def measure_detect(dsn: str, options: Namespace) -> Iterator[Line]:
    """From SIGKILL of a worker to its function running on another one, in seconds, with the default
    limits and with the fastest ones."""
    line: Line = {
        "case": "detect",
        "unit": "s from SIGKILL to the function's call elsewhere",
        "kills": options.kills,
    }
    for name, limits in {"default": rj.Limits(), "fast": FASTEST}.items():
        with tempfile.TemporaryDirectory(prefix="rj-bench-") as folder:
            took = _kills(dsn, Path(folder), limits, options.kills)
        names = {f"p50_{name}_s": 50, f"p95_{name}_s": 95, f"max_{name}_s": 100}
        line |= percentiles(took, names, digits=3)
    yield line


def _kills(dsn: str, folder: Path, limits: rj.Limits, kill_count: int) -> list[float]:
    """The seconds of each. Two workers: one is killed at work, the other waits."""
    pauses = random.Random(1)  # noqa: S311 - so that kills come anywhere between two polls
    with crew_at(dsn, folder, limits) as crew:
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
