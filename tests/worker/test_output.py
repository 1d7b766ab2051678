"""Standard output and error are no reason to fail: closed, full, or without a reader."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk, worker_of
from tests.worker.functions import print_much


def closed(_stack: ExitStack) -> dict[str, Any]:
    return {"preexec_fn": lambda: os.closerange(0, 3)}


def without_a_reader(stack: ExitStack) -> dict[str, Any]:
    reader, writer = os.pipe()
    os.close(reader)
    stack.callback(os.close, writer)
    return {"stdout": writer, "stderr": writer}


def full(stack: ExitStack) -> dict[str, Any]:
    file = os.open("/dev/full", os.O_WRONLY)
    stack.callback(os.close, file)
    return {"stdout": file, "stderr": file}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("output", [closed, without_a_reader, full])
@pytest.mark.parametrize(
    ("kind", "outcome"), [("print_much", Outcome.COMPLETED), ("raise_error", Outcome.FAILED)]
)
def test_a_function_ends_as_if_its_output_had_been_written(
    desk: Desk,
    stack: ExitStack,
    output: Callable[[ExitStack], dict[str, Any]],
    kind: str,
    outcome: Outcome,
) -> None:
    desk.make_ready("a-1", kind)
    desk.make_ready("a-2", "count")

    worker = desk.start(max_attempts=2, **output(stack))

    assert worker.until_ended(2) == [outcome, Outcome.COMPLETED]
    assert worker.exit_code() == 0


def test_nothing_that_is_printed_reaches_the_server_where_no_file_is_open(
    desk: Desk, stack: ExitStack
) -> None:
    for number in range(3):
        desk.make_ready(f"a-{number}", "print_much")

    worker = desk.start(max_attempts=3, **closed(stack))

    assert worker.until_ended(3) == [Outcome.COMPLETED] * 3
    assert [desk.journal.result(f"a-{number}") for number in range(3)] == ["printed"] * 3


def test_what_is_printed_reaches_the_file_that_a_program_has_put_in_place(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.make_ready("a-1", "print_much")
    # Nothing but `sys` refers to these files, as in a program that opens its own log.
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))
    monkeypatch.setattr(sys, "stderr", (tmp_path / "err").open("w"))

    ended = worker_of(desk, {"print_much": print_much}).run(max_attempts=1)
    sys.stdout.close()
    sys.stderr.close()

    assert dict(ended) == {Outcome.COMPLETED: 1}
    assert (tmp_path / "out").read_text().count("x" * 100_000 + "\n") == 3
    assert (tmp_path / "err").read_text().count("an error\n") == 3
