"""A child process ends with its parent, at its deadline, and when it is killed."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.process.signals import SIGNALS, has_noted_a_signal
from recovery_journal.worker.child import Child, ChildResult, ExitCode
from recovery_journal.worker.outcome import Outcome
from tests.worker.functions import LIMIT_S, is_gone, mark, until

FAR_S = 3600.0
DONE = ChildResult(outcome=Outcome.COMPLETED)


def sleep_for_ever() -> NoReturn:
    while True:
        signal.pause()


@contextmanager
def child_of(work: Callable[[], ChildResult], *, lasts_s: float = FAR_S) -> Iterator[Child]:
    child = Child(work, deadline=elapsed_s() + lasts_s)
    try:
        yield child
    finally:
        child.kill()
        child.close()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.COMPLETED, ExitCode.ENDED),
        (Outcome.FAILED, ExitCode.RAISED),
        (Outcome.LOST, ExitCode.LEASE_LOST),
        (Outcome.INTERRUPTED, ExitCode.INTERRUPTED),
    ],
)
def test_a_child_leaves_its_word_and_a_named_exit_code(outcome: Outcome, code: ExitCode) -> None:
    word = ChildResult(outcome=outcome, error_class="ValueError", message="é" * 2_000)

    with child_of(lambda: word) as child:
        assert child.is_gone_within(LIMIT_S)

    assert child.death == f"child left with code {code.value}"


def test_the_word_can_be_read_once_the_child_is_gone() -> None:
    with child_of(lambda: DONE) as child:
        assert child.is_gone_within(LIMIT_S)

        assert child.result() == DONE


def test_a_child_that_lives_is_not_gone() -> None:
    with child_of(sleep_for_ever) as child:
        assert not child.is_gone_within(0)
        assert child.result() is None


@pytest.mark.parametrize("stopping", [signal.SIGSTOP, signal.SIGTERM])
def test_a_kill_ends_a_child_that_is_stopped_or_ignores_signals(
    tmp_path: Path, stopping: signal.Signals
) -> None:
    def ignore() -> ChildResult:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mark(tmp_path / "ready")
        sleep_for_ever()

    with child_of(ignore) as child:
        until((tmp_path / "ready").exists, "the child")
        os.kill(child.pid, stopping)

        child.kill()

        assert child.is_gone_within(0)
        assert child.death == "child died of signal 9"
        assert child.result() is None


def test_a_child_kills_itself_at_its_deadline() -> None:
    with child_of(sleep_for_ever, lasts_s=0.1) as child:
        assert child.is_gone_within(LIMIT_S)

        assert child.death == "child died of signal 9"
        assert child.result() == ChildResult(outcome=Outcome.FENCED)


def test_a_deadline_can_be_extended(tmp_path: Path) -> None:
    def wait_for_it() -> ChildResult:
        until((tmp_path / "later").exists, "the first deadline to pass")
        return DONE

    first_deadline = elapsed_s() + 0.5
    with child_of(wait_for_it, lasts_s=0.5) as child:
        child.extend(elapsed_s() + FAR_S)
        until(lambda: elapsed_s() > first_deadline, "the first deadline to pass")
        mark(tmp_path / "later")
        assert child.is_gone_within(LIMIT_S)

        assert child.result() == DONE


def test_what_went_wrong_outside_of_the_work_leaves_no_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> ChildResult:
        raise AssertionError("a flaw of ours")

    with child_of(fail) as child:
        assert child.is_gone_within(LIMIT_S)

        assert child.result() is None
    assert "a flaw of ours" in capfd.readouterr().err


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_for_all_processes_ends_no_child(tmp_path: Path, number: signal.Signals) -> None:
    def work() -> ChildResult:
        mark(tmp_path / "ready")
        until((tmp_path / "go").exists, "the end of the work")
        assert has_noted_a_signal()
        return DONE

    with child_of(work) as child:
        until((tmp_path / "ready").exists, "the child")
        os.kill(child.pid, number)
        assert not child.is_gone_within(0.2)
        mark(tmp_path / "go")
        assert child.is_gone_within(LIMIT_S)

        assert child.result() == DONE


def test_what_a_child_starts_has_the_default_action_of_signals(tmp_path: Path) -> None:
    def work() -> ChildResult:
        tool = subprocess.run(["sh", "-c", "kill -TERM $$"], check=False)
        mark(tmp_path / "code", str(tool.returncode))
        return DONE

    with child_of(work) as child:
        assert child.is_gone_within(LIMIT_S)
    assert (tmp_path / "code").read_text() == str(-signal.SIGTERM)


def test_a_child_is_forked_where_nothing_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", None)

    with child_of(lambda: DONE) as child:
        assert child.is_gone_within(LIMIT_S)
        assert child.result() == DONE


def test_a_program_that_ignores_the_end_of_children_learns_how_they_ended() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with child_of(lambda: DONE) as child:
            assert child.is_gone_within(LIMIT_S)

            assert child.death == "child left with code 0"
            assert child.result() == DONE
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_without_pidfds_the_end_is_noticed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    with child_of(lambda: DONE) as child:
        assert child.is_gone_within(LIMIT_S)

        assert child.result() == DONE
        assert child.death == "child left with code 0"


@pytest.mark.parametrize("platform", [sys.platform, "another"])
def test_a_child_dies_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    def work() -> ChildResult:
        mark(tmp_path / "child", str(os.getpid()))
        sleep_for_ever()

    kept = []  # a forgotten child's link is closed, which ends it

    def be_parent() -> ChildResult:
        kept.append(Child(work, deadline=elapsed_s() + FAR_S))
        sleep_for_ever()

    with child_of(be_parent) as parent:
        until((tmp_path / "child").exists, "the child of the child")
        child_id = int((tmp_path / "child").read_text())

        os.kill(parent.pid, signal.SIGKILL)

        try:
            until(lambda: is_gone(child_id), "the child to die with its parent")
        finally:
            with suppress(ProcessLookupError):
                os.kill(child_id, signal.SIGKILL)
