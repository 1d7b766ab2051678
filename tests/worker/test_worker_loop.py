"""The loop of a worker: what it claims, when it stops, what it leaves behind."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from recovery_journal.claiming.loading import Claim
from recovery_journal.domain.errors import InvalidInput, ServerUnavailable, StoreBusy
from recovery_journal.domain.events import (
    Dispatched,
)
from recovery_journal.domain.recovery import Stage
from recovery_journal.journal import Journal
from recovery_journal.worker.outcome import Notice, NoticeKind, Outcome
from recovery_journal.worker.worker import Worker
from tests.worker.desk import Desk, ttl, worker_of
from tests.worker.functions import FUNCTIONS, until


def test_a_stopped_worker_claims_nothing(desk: Desk) -> None:
    desk.make_ready("a-1", "count")
    worker = worker_of(desk)
    worker.stop()

    ended = worker.run()

    assert ended == Counter()
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_a_stopped_worker_hands_a_lease_back_instead_of_starting(desk: Desk) -> None:
    lease = desk.journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="count")
    worker = worker_of(desk)
    worker.stop()

    outcome = worker.run_lease(lease)

    assert outcome is Outcome.HANDED_BACK
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_only_kinds_with_a_function_are_claimed(desk: Desk) -> None:
    desk.make_ready("a-1", "unknown")
    desk.make_ready("a-2", "count")

    ended = worker_of(desk).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_a_kind_without_a_function_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidInput, match="without a function"):
        worker_of(desk, kinds=["count", "unknown"])


def test_a_callback_that_raises_leaves_no_child_behind(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    found: list[int] = []

    def object_to(notice: Notice) -> None:
        if notice.kind is NoticeKind.STARTED:
            found.append(desk.child_id())
            raise RuntimeError("not like this")

    with pytest.raises(RuntimeError, match="not like this"):
        worker_of(desk, on_event=object_to).run()

    with pytest.raises(ProcessLookupError):
        os.kill(found[0], 0)


def test_stop_from_another_thread_drains(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    desk.make_ready("a-2", "hold")
    notices: list[Notice] = []

    def stop_and_let_go() -> None:
        worker.stop()
        until(lambda: notices[-1].kind is NoticeKind.DRAINING, "the drain")
        desk.let_go()

    stopper = threading.Thread(target=stop_and_let_go)

    def listen(notice: Notice) -> None:
        notices.append(notice)
        if notice.kind is NoticeKind.STARTED:
            stopper.start()

    worker = worker_of(desk, on_event=listen)
    ended = worker.run()
    stopper.join()

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert desk.journal.recovery("a-2").stage is Stage.READY


def test_signal_handlers_are_put_back(desk: Desk) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    worker_of(desk).run(until_idle=True)

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


class FailingClaims:
    """A journal whose first claims fail."""

    def __init__(self, journal: Journal, failures: list[Exception]) -> None:
        self._journal = journal
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def claim(self, **wanted: Any) -> list[Claim]:
        if self._failures:
            raise self._failures.pop()
        return self._journal.claim(**wanted)


def test_a_claim_that_fails_is_said_and_tried_again(desk: Desk) -> None:
    desk.make_ready("a-1", "count")
    notices: list[Notice] = []
    failures = [ValueError("a reducer of the user's"), StoreBusy("claim", limit="10 s")]
    journal: Any = FailingClaims(desk.journal, failures)

    ended = Worker(journal, "w-1", FUNCTIONS, on_event=notices.append).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    problems = [notice.text for notice in notices if notice.kind is NoticeKind.PROBLEM]
    assert [problem.split(":")[1] for problem in problems] == [" StoreBusy", " ValueError"]


def test_a_claim_that_always_fails_ends_the_worker(desk: Desk) -> None:
    failures: list[Exception] = [ValueError(f"failure {number}") for number in range(20)]
    journal: Any = FailingClaims(desk.journal, failures)
    worker = Worker(
        journal, "w-1", FUNCTIONS, shortest_pause_s=0.0001, on_event=lambda _notice: None
    )

    with pytest.raises(ValueError, match="failure 10"):
        worker.run()


def test_what_a_lost_reply_had_granted_is_found_again(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    class LosesReply(FailingClaims):
        def claim(self, **wanted: Any) -> list[Claim]:
            claims = self._journal.claim(**wanted)
            if self._failures:
                raise self._failures.pop()
            return claims

    journal: Any = LosesReply(desk.journal, [ServerUnavailable(server="here", reason="a cut")])

    ended = Worker(journal, "w-1", FUNCTIONS, on_event=lambda _notice: None).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert len(desk.events("a-1", Dispatched)) == 1


@pytest.mark.parametrize("kind", ["count", "leave", "outlive"])
def test_thirty_attempts_leave_no_files_open_and_no_zombies(desk: Desk, kind: str) -> None:
    def outlive(claim: Claim) -> None:
        """Until a heartbeat has been seen, so that its thread has a connection to leave."""
        with desk.journal.database.cursor() as cursor:
            query = "SELECT renewed_at FROM leases WHERE attempt_id = %s"
            wanted = [claim.lease.attempt_id]
            first = cursor.execute(query, wanted).fetchone()
            until(lambda: cursor.execute(query, wanted).fetchone() != first, "a heartbeat")

    worker = worker_of(desk, {**FUNCTIONS, "outlive": outlive}, ttl=ttl(0.3))

    def run_one(number: int) -> None:
        desk.make_ready(f"a-{number}", kind)
        worker.run(max_attempts=1)
        if kind == "leave":
            desk.journal.cancel(f"a-{number}", by="a tester", reason="done with it")

    run_one(0)
    before = open_files(), child_count()
    for number in range(1, 31):
        run_one(number)

    assert (open_files(), child_count()) == before


def child_count() -> int:
    """Children of this process, dead ones that are not reaped too."""
    return len(psutil.Process().children())


def open_files() -> int:
    folder: Callable[[], Any] = Path("/dev/fd").iterdir
    return sum(1 for _ in folder())
