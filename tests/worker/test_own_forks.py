"""A process that a function or a reducer has forked never speaks for the attempt."""

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.claiming.loading import Claim
from recovery_journal.recovery.reducer_child import ReducerChild, question
from recovery_journal.store.runs import StoredStep
from recovery_journal.values.payload import BUILT_IN
from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk, worker_of


def return_it() -> str:
    return "the fork's"


def raise_an_error() -> str:
    raise ValueError("the fork's")


def exit_well() -> str:
    sys.exit(0)


def exit_with_words() -> str:
    sys.exit("the fork's")


every_end = pytest.mark.parametrize("end", [return_it, raise_an_error, exit_well, exit_with_words])


def forking(end: Callable[[], str], *, waits: bool) -> str:
    """The value of the process itself; its fork ends in the given way."""
    pid = os.fork()
    if pid == 0:
        return end()
    if waits:
        os.waitpid(pid, 0)
    return "its own"


@every_end
@pytest.mark.parametrize("waits", [True, False], ids=["waited for", "left alone"])
def test_the_result_is_that_of_the_functions_own_process(
    desk: Desk, end: Callable[[], str], *, waits: bool
) -> None:
    desk.make_ready("a-1", "fork")

    def function(_claim: Claim) -> str:
        return forking(end, waits=waits)

    ended = worker_of(desk, {"fork": function}).run(max_attempts=1)

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert desk.journal.result("a-1") == "its own"


@every_end
def test_an_async_function_too(desk: Desk, end: Callable[[], str]) -> None:
    desk.make_ready("a-1", "fork")

    async def function(_claim: Claim) -> str:
        return forking(end, waits=True)

    ended = worker_of(desk, {"fork": function}).run(max_attempts=1)

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert desk.journal.result("a-1") == "its own"


def test_a_function_that_raises_after_its_fork_is_failed_with_its_own_error(desk: Desk) -> None:
    desk.make_ready("a-1", "fork")

    def function(_claim: Claim) -> str:
        forking(return_it, waits=True)
        raise KeyError("its own")

    ended = worker_of(desk, {"fork": function}).run(max_attempts=1)

    assert dict(ended) == {Outcome.FAILED: 1}
    [failed] = desk.events("a-1", rj.events.LeaseEnded)
    assert failed.error_class == "KeyError"


@every_end
def test_the_state_is_that_of_the_reducers_own_process(end: Callable[[], str]) -> None:
    def reducer(_state: Any, _name: str, _output: Any) -> str:
        return forking(end, waits=True)

    start = BUILT_IN.encode(None, name="state")
    output = BUILT_IN.encode(1, name="output")
    child = ReducerChild({"kind": reducer}, BUILT_IN)
    try:
        tail = [StoredStep(1, "step", output.encoded)]
        child.ask(question("kind", start.encoded, tail, wants_state=True))
        folded = child.answer(30, lambda _size: None)
    finally:
        child.close()

    assert folded.state == BUILT_IN.encode("its own", name="state").encoded
