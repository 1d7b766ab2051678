"""The parts that processes of a chaos test and of a soak test have in common."""

import itertools
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar
from uuid import uuid4

import recovery_journal as rj
from recovery_journal.postgres.database import one
from scripts.harness.job import FOLDED, Run, folded
from scripts.harness.life import Setting, asked_to_end, report

AnswerT = TypeVar("AnswerT")

PAUSE_S: Final = 0.1
OPEN_LIMIT: Final = 12  # attempts that are not finished yet
LOOKS: Final = 3
REMEMBERED: Final = 1_000  # attempts that may be queried again
REBUILT: Final = "rebuilt"

LIMITS: Final = rj.Limits(
    ttl_s=1.5,
    grace_s=0.3,
    session_grace_s=0.3,
    session_poll_s=0.05,
    sweeper_ttl_s=2.0,
    reducer_s=1.0,
    # A chaos test hits the same run repeatedly, which is no fault of the run's.
    policy=rj.Policy(crash_loop_count=1_000, raise_limit=1_000, backoff_s=0.1, backoff_limit_s=1),
)

OPEN: Final = "SELECT count(*) AS count FROM leases WHERE ended_at IS NULL"


def opened(name: str, setting: Setting) -> rj.Journal:
    """The journal, as soon as the server is there."""
    journal = asked(
        lambda: rj.open(
            setting.dsn_of(name),
            schema=setting.schema,
            limits=LIMITS,
            reducers={FOLDED: folded},
            must_exist=True,
        ),
        threading.Event(),
    )
    assert journal is not None
    return journal


def asked(call: Callable[[], AnswerT], stop: threading.Event) -> AnswerT | None:
    """The result of a call that is retried until it has one; None once this process is to end."""
    while not stop.is_set():
        try:
            return call()
        except rj.Retry as problem:
            report(problem)
        stop.wait(PAUSE_S)
    return None


def sweep(name: str, setting: Setting) -> None:
    """A sweeper."""
    with opened(name, setting) as journal:
        rj.Sweeper(journal, on_problem=report).run()


def follow(name: str, setting: Setting) -> None:
    """A follower."""
    with opened(name, setting) as journal:
        rj.Follower(journal, on_problem=report).run()


def rebuild(name: str, setting: Setting, *, pause_s: float = 1.0) -> None:
    """Check everything and rebuild it, until asked to end. While the server is away it retries; it
    ends where rows are wrong, before the rebuild would hide that."""
    with opened(name, setting) as journal:
        stop = asked_to_end()
        while not stop.is_set():
            try:
                _require_right(journal)
                done = journal.rebuild(process_count=2)
                report(f"{REBUILT} from {done.event_count} events")
            except rj.Retry as problem:
                report(problem)
            stop.wait(pause_s)


def _require_right(journal: rj.Journal) -> None:
    for checked in journal.check():
        if not checked.is_right:
            raise SystemExit(f"{checked.projection} is wrong: {checked.differences}")


def open_attempts(
    journal: rj.Journal,
    name: str,
    kinds: Sequence[str],
    query: Callable[[str], object] = lambda _attempt_id: None,
) -> None:
    """Open attempts for the workers, as many as they need, and query what became of older ones,
    until asked to end."""
    stop = asked_to_end()
    begun: deque[str] = deque(maxlen=REMEMBERED)
    for number in itertools.count(1):
        while (asked(lambda: _open_count(journal), stop) or 0) >= OPEN_LIMIT:
            for attempt_id in random.sample(begun, min(LOOKS, len(begun))):
                asked(lambda: query(attempt_id), stop)  # noqa: B023 - called at once
            stop.wait(PAUSE_S)
        if stop.is_set():
            return
        attempt_id = f"{name}-{os.getpid()}-{number}"
        if _begin(journal, attempt_id, kinds[number % len(kinds)], stop):
            begun.append(attempt_id)


def _begin(journal: rj.Journal, attempt_id: str, kind: str, stop: threading.Event) -> bool:
    """Acquire an attempt, retrying until there is a result, and hand it to the workers."""
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
        # A call without a reply was done, and its lease lost meanwhile: the sweeper has it.
        report(problem)
    return True


def _open_count(journal: rj.Journal) -> int:
    with journal.database.cursor() as cursor:
        return int(one(cursor.execute(OPEN))["count"])
