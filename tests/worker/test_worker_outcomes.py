"""What a worker makes of the ways in which a function ends."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInput, ServerUnavailable, StoreBusy
from domain.events import (
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    StaleWriteRefused,
)
from domain.lease import LossReason
from domain.recovery import Stage
from recovery_journal.claims import Claim
from recovery_journal.elapsed import elapsed_s
from recovery_journal.journal import Journal
from recovery_journal.outcome import Notice, NoticeKind, Outcome
from recovery_journal.worker import Worker
from tests.worker.desk import TTL_S, Desk, ttl
from tests.worker.functions import FUNCTIONS, until


def worker_of(desk: Desk, functions: Any = FUNCTIONS, **settings: Any) -> Worker:
    settings = {"ttl": ttl(TTL_S), "on_event": lambda _notice: None, **settings}
    return Worker(desk.journal, "w-1", functions, **settings)


def last_ending(desk: Desk, attempt_id: str) -> LeaseEnded:
    ended = desk.journal.recovery(attempt_id).ended
    assert isinstance(ended, LeaseEnded)
    return ended


def test_a_function_that_returns_completes_its_attempt(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    ended = worker_of(desk).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert last_ending(desk, "a-1").ending is Ending.COMPLETED
    assert len(desk.events("a-1", Confirmed)) == 1


def test_a_function_that_raises_fails_its_attempt_with_the_error(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.make_ready("a-1", "raise_error")
    notices: list[Notice] = []

    ended = worker_of(desk, on_event=notices.append).run(until_idle=True)

    assert ended == Counter({Outcome.FAILED: 1})
    event = last_ending(desk, "a-1")
    assert (event.ending, event.error_class) == (Ending.FAILED, "ValueError")
    assert event.message == f"cannot count {str(desk.folder)!r}"
    assert "in raise_error" in capfd.readouterr().err
    problems = [notice.text for notice in notices if notice.kind is NoticeKind.PROBLEM]
    assert problems == [f"ValueError: {event.message}"]


def test_a_result_that_cannot_be_stored_fails_the_attempt(desk: Desk) -> None:
    desk.make_ready("a-1", "return_a_function")

    ended = worker_of(desk).run(until_idle=True)

    assert ended == Counter({Outcome.FAILED: 1})
    assert last_ending(desk, "a-1").error_class == "InvalidInput"


def test_a_child_that_leaves_without_a_word_is_reported_whatever_its_code(desk: Desk) -> None:
    desk.make_ready("a-1", "leave")

    ended = worker_of(desk).run(max_attempts=1)

    assert ended == Counter({Outcome.DIED: 1})
    recovery = desk.journal.recovery("a-1")
    assert recovery.lost is not None
    assert (recovery.lost.loss, recovery.stage) == (LossReason.REPORTED, Stage.READY)
    assert recovery.lost.reason == "child died: child left with code 0"
    assert recovery.fruitless_count == 1


def test_a_function_may_let_its_attempt_wait_for_a_person(desk: Desk) -> None:
    desk.make_ready("a-1", "wait")

    ended = worker_of(desk).run(until_idle=True)

    assert ended == Counter({Outcome.WAITING: 1})
    assert desk.journal.recovery("a-1").stage is Stage.WAITING
    assert desk.events("a-1", StaleWriteRefused) == []


def test_a_function_may_hand_its_lease_back(desk: Desk) -> None:
    desk.make_ready("a-1", "hand_back")

    ended = worker_of(desk).run(max_attempts=1)

    assert ended == Counter({Outcome.HANDED_BACK: 1})
    assert desk.journal.recovery("a-1").stage is Stage.READY
    assert desk.events("a-1", StaleWriteRefused) == []


def test_a_void_lease_is_no_failure_of_the_function(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def lose(claim: Claim) -> None:
        desk.journal.cancel(claim.lease.attempt_id, by="a tester", reason="not needed")
        claim.lease.record_step("too late")

    ended = worker_of(desk, lose).run(until_idle=True)

    assert ended == Counter({Outcome.LOST: 1})
    assert last_ending(desk, "a-1").ending is Ending.CANCELLED


def test_the_claim_goes_on_where_the_last_worker_stopped(desk: Desk) -> None:
    lease = desk.journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-0", kind="sum", input=[1, 2, 3]
    )
    lease.record_step("one", 1)
    lease.checkpoint(1)
    lease.record_step("two", 2)
    lease.hand_back()

    def go_on(claim: Claim) -> int:
        done = claim.state + sum(step.output for step in claim.tail)
        claim.lease.record_step("three", claim.input[2])
        return int(done + claim.input[2])

    ended = worker_of(desk, {"sum": go_on}).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    recovery = desk.journal.recovery("a-1")
    assert recovery.recovery_no == 1
    assert len(desk.events("a-1", LeaseExpired)) == 1


def test_a_fresh_attempt_runs_under_the_same_guard(desk: Desk) -> None:
    lease = desk.journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="count", ttl=ttl(TTL_S)
    )

    outcome = worker_of(desk).run_lease(lease)

    assert outcome is Outcome.COMPLETED
    assert desk.events("a-1", LeaseExpired) == []


def test_a_fresh_attempt_whose_child_dies_is_reported(desk: Desk) -> None:
    lease = desk.journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="leave", ttl=ttl(TTL_S)
    )

    outcome = worker_of(desk).run_lease(lease)

    assert outcome is Outcome.DIED
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_a_claim_that_was_lost_before_its_start_never_starts(desk: Desk) -> None:
    lease = desk.journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="hold", input=str(desk.folder)
    )
    desk.journal.report_lost(worker_id="w-1", incarnation=None, reason="pod deleted")

    outcome = worker_of(desk).run_lease(lease)

    assert outcome is Outcome.LOST
    assert not (desk.folder / "started").exists()


def test_a_child_without_progress_is_killed_as_stalled(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")

    ended = worker_of(desk, stalled_after_s=0.3).run(max_attempts=1)

    assert ended == Counter({Outcome.STALLED: 1})
    recovery = desk.journal.recovery("a-1")
    assert recovery.lost is not None
    assert (recovery.lost.loss, recovery.stage) == (LossReason.STALLED, Stage.READY)


def test_a_child_with_progress_is_not_stalled(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def progress(claim: Claim) -> None:
        longer_than_that = elapsed_s() + 3 * 0.3
        while elapsed_s() < longer_than_that:
            claim.lease.record_step("more")

    ended = worker_of(desk, progress, stalled_after_s=0.3).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})


def test_a_lease_outlives_its_ttl_while_its_worker_lives(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def sleep_long(claim: Claim) -> None:
        before = claim.lease.terms.expires_at
        with desk.journal.database.cursor() as cursor:
            query = "SELECT pg_sleep(extract(epoch FROM %s - clock_timestamp()) + 0.5)"
            cursor.execute(query, [before])

    ended = worker_of(desk, sleep_long, ttl=ttl(0.5)).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert len(desk.events("a-1", LeaseExpired)) == 1  # the one that made it ready


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
    worker = Worker(journal, "w-1", FUNCTIONS, longest_pause_s=0.02, on_event=lambda _notice: None)

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
    before = open_files()
    for number in range(1, 31):
        run_one(number)

    assert open_files() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def open_files() -> int:
    folder: Callable[[], Any] = Path("/dev/fd").iterdir
    return sum(1 for _ in folder())
