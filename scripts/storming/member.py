"""The parts that the processes of a storm play, each until SIGTERM."""

import itertools
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final
from uuid import uuid4

import recovery_journal as rj
from scripts.storming.history import History
from scripts.storming.job import FOLDED, KINDS, Run, folded, work
from scripts.storming.life import LIMITS, PAUSE_S, Part, Setting, asked, asked_to_end, opened, tell
from scripts.storming.watched import WatchedJournal

OPEN_LIMIT: Final = 12  # attempts that are not finished yet
LOOKS: Final = 3
REMEMBERED: Final = 1_000  # attempts that may be looked at again
REBUILD_PAUSE_S: Final = 1.0
REBUILT: Final = "rebuilt"

OPEN: Final = "SELECT count(*) AS count FROM leases WHERE ended_at IS NULL"


class Role(StrEnum):
    """What a process does."""

    WORKER = "worker"
    SWEEPER = "sweeper"
    FOLLOWER = "follower"
    STARTER = "starter"
    REBUILDER = "rebuilder"
    READER = "reader"
    CALLER = "caller"


def _worker(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        rj.Worker(journal, name, dict.fromkeys(KINDS, work), on_event=tell).run()


def sweep(name: str, setting: Setting) -> None:
    """A sweeper."""
    with opened(name, setting) as journal:
        rj.Sweeper(journal, on_problem=tell).run()


def follow(name: str, setting: Setting) -> None:
    """A follower."""
    with opened(name, setting) as journal:
        rj.Follower(journal, on_problem=tell).run()


def _rebuilder(name: str, setting: Setting) -> None:
    with opened(name, setting) as journal:
        rebuild_over_and_over(journal, pause_s=REBUILD_PAUSE_S)


def rebuild_over_and_over(journal: rj.Journal, *, pause_s: float) -> None:
    """Check everything and rebuild it, until asked to end. A server that is away is no end of it;
    rows that are wrong are, before the rebuild would hide that."""
    stop = asked_to_end()
    while not stop.is_set():
        try:
            _require_right(journal)
            report = journal.rebuild(process_count=2)
            tell(f"{REBUILT} from {report.event_count} events")
        except rj.Retry as problem:
            tell(problem)
        stop.wait(pause_s)


def _require_right(journal: rj.Journal) -> None:
    for one in journal.check():
        if not one.is_right:
            raise SystemExit(f"{one.projection} is wrong: {one.differences}")


def _starter(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        open_attempts(journal, name, KINDS, look=journal.look)


def open_attempts(
    journal: rj.Journal,
    name: str,
    kinds: Sequence[str],
    look: Callable[[str], object] = lambda _attempt_id: None,
) -> None:
    """Open attempts for the workers, as many as they need, and look what became of older ones,
    until asked to end."""
    stop = asked_to_end()
    begun: deque[str] = deque(maxlen=REMEMBERED)
    for number in itertools.count(1):
        while (asked(lambda: _open_count(journal), stop) or 0) >= OPEN_LIMIT:
            for attempt_id in random.sample(begun, min(LOOKS, len(begun))):
                asked(lambda: look(attempt_id), stop)  # noqa: B023 - called at once
            stop.wait(PAUSE_S)
        if stop.is_set():
            return
        attempt_id = f"{name}-{os.getpid()}-{number}"
        if _begin(journal, attempt_id, kinds[number % len(kinds)], stop):
            begun.append(attempt_id)


def _begin(journal: rj.Journal, attempt_id: str, kind: str, stop: threading.Event) -> bool:
    """Acquire an attempt, asking until there is an answer, and hand it to the workers."""
    event_id = uuid4().hex

    def acquire() -> rj.Lease:
        return journal.acquire(
            attempt_id=attempt_id,
            run_id=f"run of {attempt_id}",
            worker_id=attempt_id,
            kind=kind,
            input=Run.of(attempt_id).input,
            event_id=event_id,
        )

    try:
        lease = asked(acquire, stop)
        if lease is None:
            return False
        asked(lambda: lease.hand_back("for the workers"), stop)
    except (rj.AttemptExists, rj.LeaseLost) as problem:
        # What had no answer was done, and has been lost meanwhile: the sweeper has it.
        tell(problem)
    return True


def _open_count(journal: rj.Journal) -> int:
    with journal.database.cursor() as cursor:
        row = cursor.execute(OPEN).fetchone()
    assert row is not None
    return int(row["count"])


def _watched(name: str, setting: Setting) -> WatchedJournal:
    return WatchedJournal(
        setting.dsn_of(name),
        setting.schema,
        History(setting.histories, name),
        limits=LIMITS,
        reducers={FOLDED: folded},
    )


PARTS: Final[Mapping[Role, tuple[int, Part]]] = {
    Role.WORKER: (6, _worker),
    Role.SWEEPER: (2, sweep),
    Role.FOLLOWER: (2, follow),
    Role.STARTER: (1, _starter),
    Role.REBUILDER: (1, _rebuilder),
}
"""Who takes part in a storm: how many of each, and what they do."""
