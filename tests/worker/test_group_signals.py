"""A signal to all processes of a worker, as service managers send it, drains as one to it alone."""

import os
import signal

import pytest

from recovery_journal.domain.events import LeaseExpired, StepFailed
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Stage
from recovery_journal.process.signals import SIGNALS
from recovery_journal.worker.outcome import NoticeKind, Outcome
from tests.worker.desk import Desk
from tests.worker.functions import until

every_signal = pytest.mark.parametrize("number", SIGNALS)


@every_signal
def test_a_function_may_end_while_all_processes_were_asked_to(
    desk: Desk, number: signal.Signals
) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start()
    desk.child_id()

    worker.signal_all(number)
    until(lambda: worker.is_draining, "the drain")
    desk.let_go()

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.COMPLETED]


@every_signal
def test_a_function_whose_tool_the_signal_ended_is_handed_back(
    desk: Desk, number: signal.Signals
) -> None:
    desk.make_ready("a-1", "hold_with_a_tool")
    worker = desk.start()
    desk.child_id()

    worker.signal_all(number)

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.HANDED_BACK]
    assert [it.loss for it in desk.events("a-1", LeaseExpired)][-1] is LossReason.HANDED_BACK


def test_no_number_of_deployments_quarantines_a_run(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_with_a_tool")

    for number in range(7):
        worker = desk.start(f"w-{number}")
        desk.child_id()
        desk.forget_start()
        worker.signal_all(signal.SIGTERM)
        assert worker.exit_code() == 0
        assert worker.outcomes == [Outcome.HANDED_BACK]

    recovery = desk.journal.recovery("a-1")
    assert recovery.stage is Stage.READY
    assert recovery.recoveries_without_progress == 0
    assert desk.events("a-1", StepFailed) == []


def test_a_function_that_raises_in_a_drain_is_handed_back(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_and_raise")
    worker = desk.start()
    desk.child_id()

    worker.signal(signal.SIGTERM)
    until(lambda: worker.is_draining, "the drain")
    desk.let_go()

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.HANDED_BACK]


@pytest.mark.parametrize("number", [None, *SIGNALS])
def test_a_function_that_raises_is_failed_where_its_worker_does_not_drain(
    desk: Desk, number: signal.Signals | None
) -> None:
    desk.make_ready("a-1", "hold_and_raise")
    worker = desk.start()
    child_id = desk.child_id()

    if number is not None:
        os.kill(child_id, number)
    desk.let_go()

    assert worker.until_ended() == [Outcome.FAILED]


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    desk.child_id()

    worker.signal_all(signal.SIGHUP)
    desk.let_go()

    assert worker.until_ended() == [Outcome.COMPLETED]
    assert all(notice.kind is not NoticeKind.DRAINING for notice in worker.notices)
    assert worker.process.poll() is None
