"""Nothing of a function outlives its turn, however its worker, its guardian or it itself ends."""

import os
import signal

import psutil
import pytest

from recovery_journal.domain.events import LeaseExpired
from recovery_journal.domain.lease import LossReason
from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk, WorkerProgram, kill_for_good
from tests.worker.functions import is_gone, until

HOLDING = ["hold_with_a_tool", "hold_with_a_fork", "hold_with_a_daemon"]


def started_by(worker: WorkerProgram) -> list[psutil.Process]:
    """The guardian, the child, and what that has started."""
    return list(psutil.Process(worker.process.pid).children(recursive=True))


def are_gone(processes: list[psutil.Process]) -> bool:
    return all(is_gone(one.pid) for one in processes)


@pytest.mark.parametrize("kind", HOLDING)
def test_a_killed_worker_takes_everything_along(desk: Desk, kind: str) -> None:
    desk.make_ready("a-1", kind)
    worker = desk.start(ttl_s=30)
    desk.child_id()
    processes = started_by(worker)

    worker.signal(signal.SIGKILL)

    assert len(processes) >= 3
    until(lambda: are_gone(processes), f"the end of {processes}")


@pytest.mark.parametrize("kind", ["hold_with_a_fork", "hold_with_a_daemon"])
def test_what_a_function_leaves_is_gone_before_the_next_turn(desk: Desk, kind: str) -> None:
    desk.make_ready("a-1", kind)
    worker = desk.start()
    desk.child_id()
    processes = started_by(worker)

    desk.let_go()

    assert worker.until_ended() == [Outcome.COMPLETED]
    assert are_gone(processes)


@pytest.mark.parametrize("kind", HOLDING)
def test_a_killed_guardian_takes_its_child_along_and_the_worker_continues(
    desk: Desk, kind: str
) -> None:
    desk.make_ready("a-1", kind)
    worker = desk.start(ttl_s=30)
    child_id = desk.child_id()
    guardian = psutil.Process(child_id).parent()
    assert guardian is not None
    started = psutil.Process(child_id).children(recursive=True)

    guardian.kill()
    until(lambda: is_gone(child_id), "the end of the child")
    desk.let_go()

    assert worker.until_ended(2) == [Outcome.DIED, Outcome.COMPLETED]
    if kind == "hold_with_a_daemon":  # it has left the group, and nothing else knows of it
        kill_for_good(started[0].pid)
    until(lambda: are_gone(started), "the end of what the child had started")
    assert desk.events("a-1", LeaseExpired)[-1].loss is LossReason.REPORTED


def test_a_stopped_guardian_keeps_no_worker_from_killing(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(drain_s=0.1)
    child_id = desk.child_id()
    guardian = psutil.Process(child_id).parent()
    assert guardian is not None

    guardian.suspend()
    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.HANDED_BACK]
    assert is_gone(child_id)
    assert is_gone(guardian.pid)


def test_a_child_that_holds_the_interpreter_is_ended_though_its_worker_stands_still(
    desk: Desk,
) -> None:
    desk.make_ready("a-1", "hold_the_interpreter")
    worker = desk.start(ttl_s=0.3)
    child_id = desk.child_id()

    worker.signal(signal.SIGSTOP)

    until(lambda: is_gone(child_id), "the guardian to end the child")
    assert not (desk.folder / "held").exists()
    os.kill(worker.process.pid, signal.SIGCONT)
    assert worker.until_ended()[0] is Outcome.FENCED
