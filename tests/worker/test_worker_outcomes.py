"""The outcomes of the ways in which a worker's function ends."""

import errno
import os
from collections import Counter

import pytest

from recovery_journal.claiming.loading import Claim
from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.domain.events import (
    Confirmed,
    Ending,
    LeaseEnded,
    LeaseExpired,
    StaleWriteRefused,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Stage
from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.worker.outcome import Notice, NoticeKind, Outcome
from tests.rules.scenes import said_last
from tests.worker.desk import TTL_S, Desk, ttl, worker_of
from tests.worker.functions import mark, until


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
    said = said_last(desk.journal)
    assert (event.message, said) == ("", f"cannot count {str(desk.folder)!r}")
    assert "in raise_error" in capfd.readouterr().err
    problems = [notice.text for notice in notices if notice.kind is NoticeKind.PROBLEM]
    assert problems == [f"ValueError: {said}"]


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
    assert recovery.lost.reason == "child left with code 0"
    assert recovery.recoveries_without_progress == 1


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


def test_a_server_that_is_away_is_no_failure_of_the_function(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def be_cut_off(_claim: Claim) -> None:
        raise ServerUnavailable(server="here", reason="a cut")

    ended = worker_of(desk, be_cut_off).run(max_attempts=1)

    assert ended == Counter({Outcome.INTERRUPTED: 1})
    recovery = desk.journal.recovery("a-1")
    assert recovery.lost is not None
    assert (recovery.lost.loss, recovery.stage) == (LossReason.REPORTED, Stage.READY)


def test_a_function_that_ended_its_lease_may_tidy_up(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def complete_and_tidy_up(claim: Claim) -> None:
        claim.lease.complete("early")
        longer_than_a_heartbeat = elapsed_s() + 0.9
        until(lambda: elapsed_s() > longer_than_a_heartbeat, "a heartbeat to be refused")
        mark(desk.folder / "tidy")

    ended = worker_of(desk, complete_and_tidy_up, ttl=ttl(1.5)).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert (desk.folder / "tidy").exists()


def test_a_host_without_processes_hands_the_lease_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.make_ready("a-1", "count")

    def no_more() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", no_more)
    ended = worker_of(desk).run(max_attempts=1)

    assert ended == Counter({Outcome.UNSTARTED: 1})
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_the_claim_continues_where_the_last_worker_stopped(desk: Desk) -> None:
    lease = desk.journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-0", kind="sum", input=[1, 2, 3]
    )
    lease.record_step("one", 1)
    lease.checkpoint(1)
    lease.record_step("two", 2)
    lease.hand_back()

    def add_up(claim: Claim) -> int:
        done = claim.state + sum(step.output for step in claim.tail)
        claim.lease.record_step("three", claim.input[2])
        return int(done + claim.input[2])

    ended = worker_of(desk, {"sum": add_up}).run(until_idle=True)

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
