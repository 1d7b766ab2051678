"""A child that stands still is killed where no heartbeat is acknowledged, and only there."""

import os
import signal
import time

import pytest

from recovery_journal.domain.events import Dispatched
from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk
from tests.worker.functions import is_gone, until

SHORT_TTL_S = 0.5
STILL_S = 4 * SHORT_TTL_S


def test_a_call_that_holds_the_interpreter_for_many_ttls_is_completed(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_the_interpreter")

    worker = desk.start(ttl_s=SHORT_TTL_S)

    assert worker.until_ended() == [Outcome.COMPLETED]
    assert len(desk.events("a-1", Dispatched)) == 1


def test_a_child_that_was_stopped_for_many_ttls_continues(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(ttl_s=SHORT_TTL_S)
    child_id = desk.child_id()

    os.kill(child_id, signal.SIGSTOP)
    time.sleep(STILL_S)
    os.kill(child_id, signal.SIGCONT)
    desk.let_go()

    assert worker.until_ended() == [Outcome.COMPLETED]
    assert len(desk.events("a-1", Dispatched)) == 1


@pytest.mark.parametrize("still", ["worker", "both"])
def test_a_child_whose_worker_stands_still_is_gone_after_a_ttl(desk: Desk, still: str) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(ttl_s=SHORT_TTL_S)
    child_id = desk.child_id()

    worker.signal(signal.SIGSTOP)
    if still == "both":
        os.kill(child_id, signal.SIGSTOP)

    until(lambda: is_gone(child_id), "its guardian to end the child")
    worker.signal(signal.SIGCONT)
    desk.let_go()
    assert worker.until_ended(1)[0] is Outcome.FENCED
