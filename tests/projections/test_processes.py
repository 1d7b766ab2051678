"""Processes side by side: what they do adds up, and they fail, die and end together."""

import faulthandler
import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from recovery_journal.domain.errors import ProcessLost, RecoveryJournalError
from recovery_journal.process.forks import ForkedChild
from recovery_journal.read_models.rebuild.processes import (
    Count,
    Work,
    _require_healthy,
    side_by_side,
)
from tests.acceptance.programs import is_alive
from tests.domain.test_errors import EXAMPLES
from tests.rules.scenes import LIMIT_S, until

forking = multiprocessing.get_context("fork")


def children() -> list[psutil.Process]:
    """The forks of this process that have not ended; a fork has its parent's command line."""
    me = psutil.Process()
    return [it for it in me.children() if is_alive(it) and it.cmdline() == me.cmdline()]


def ignore(_done: int) -> None:
    """Is not interested."""


def until_killed(_no: int, _count: Count) -> None:
    while True:
        signal.pause()


def raising(error: BaseException) -> Work:
    """The second of them raises; the others stay until they are killed."""

    def work(no: int, count: Count) -> None:
        if no == 1:
            raise error
        until_killed(no, count)

    return work


@pytest.mark.parametrize("process_count", [1, 2, 5])
def test_what_all_have_done_adds_up_and_never_falls(process_count: int) -> None:
    reported: list[int] = []

    def work(no: int, count: Count) -> None:
        for _ in range(100):
            count(no + 1)

    side_by_side(work, process_count, reported.append)

    assert reported == sorted(reported)
    assert reported[-1] == 100 * sum(range(1, process_count + 1))


def test_work_done_just_before_the_end_of_a_process_is_reported_too() -> None:
    may_work = forking.Event()
    reported: list[int] = []

    def work(_no: int, count: Count) -> None:
        assert may_work.wait(LIMIT_S)
        count(5)

    def report(done: int) -> None:
        reported.append(done)
        may_work.set()
        until(lambda: not children(), "both to end behind this count")

    side_by_side(work, 2, report)

    assert reported[-1] == 10


def test_one_alone_works_in_this_process() -> None:
    found: list[int] = []

    side_by_side(lambda no, _count: found.extend([no, os.getpid()]), 1, ignore)

    assert found == [0, os.getpid()]


def test_several_work_in_processes_of_their_own() -> None:
    here, there = forking.Pipe(duplex=False)

    side_by_side(lambda no, _count: there.send((no, os.getpid())), 3, ignore)

    found = dict(here.recv() for _ in range(3))
    assert found.keys() == {0, 1, 2}
    assert len({*found.values(), os.getpid()}) == 4


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_keeps_its_type_its_message_and_its_attributes(
    error: RecoveryJournalError,
) -> None:
    with pytest.raises(type(error)) as raised:
        side_by_side(raising(error), 2, ignore)

    assert type(raised.value) is type(error)
    assert (str(raised.value), vars(raised.value)) == (str(error), vars(error))
    assert not children()


@pytest.mark.parametrize("error", [KeyError("k"), EOFError("the end"), OSError(28, "disk full")])
def test_errors_of_others_arrive_too(error: Exception) -> None:
    def work(no: int, _count: Count) -> None:
        if no == 1:
            raise error

    with pytest.raises(type(error)) as raised:
        side_by_side(work, 2, ignore)

    assert raised.value.args == error.args


class Uncarried(Exception):
    """Cannot be pickled: it is made of two values and remembers one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.made = lambda: None


def test_an_error_that_cannot_be_pickled_is_reported_in_words() -> None:
    with pytest.raises(RuntimeError, match=r"^Uncarried: fold: no reason$"):
        side_by_side(raising(Uncarried("fold", "no reason")), 2, ignore)


def test_an_error_raised_behind_the_last_look_is_raised_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_fail = forking.Event()
    checked: list[ForkedChild] = []

    def work(no: int, _count: Count) -> None:
        if no == 1:
            assert may_fail.wait(LIMIT_S)
            raise LookupError("late")

    def look_and_let_it_end(child: ForkedChild) -> None:
        _require_healthy(child)
        checked.append(child)
        if len(checked) % 2 == 0:
            may_fail.set()
        child.is_gone_within(LIMIT_S)

    looking = "recovery_journal.read_models.rebuild.processes._require_healthy"
    monkeypatch.setattr(looking, look_and_let_it_end)

    with pytest.raises(LookupError, match="late"):
        side_by_side(work, 2, ignore)


@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "signal 11"),
        (lambda: os._exit(3), "exit code 3"),
    ],
)
def test_one_that_dies_without_a_word_is_lost_and_the_others_are_killed(
    die: Callable[[], None], how: str
) -> None:
    here, there = forking.Pipe(duplex=False)

    def work(no: int, count: Count) -> None:
        if no == 2:
            there.send(os.getpid())
            faulthandler.disable()  # pytest would print what is expected here
            die()
        until_killed(no, count)

    with pytest.raises(ProcessLost, match=how) as raised:
        side_by_side(work, 3, ignore)

    assert raised.value.process_id == here.recv()
    assert not children()


def test_all_are_killed_when_their_parent_is_interrupted() -> None:
    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(until_killed, 2, interrupt)

    assert not children()


def test_a_keyboards_interrupt_is_left_to_the_parent() -> None:
    def work(_no: int, count: Count) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        count(1)

    reported: list[int] = []
    side_by_side(work, 2, reported.append)

    assert reported[-1] == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_orphan_ends_at_its_next_count(number: signal.Signals) -> None:
    here, there = forking.Pipe(duplex=False)

    def count_on_and_on(_no: int, count: Count) -> None:
        there.send(os.getpid())
        while True:
            count(1)
            time.sleep(0.001)

    parent = forking.Process(target=side_by_side, args=(count_on_and_on, 2, ignore))
    parent.start()
    children = [psutil.Process(here.recv()) for _ in range(2)]

    assert parent.pid is not None
    os.kill(parent.pid, number)
    parent.join(LIMIT_S)

    until(lambda: not any(is_alive(child) for child in children), "the orphans to end")
