"""A command whose output has no reader, or cannot be written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recovery_journal.cli.exits import ExitCode
from recovery_journal.journal import Journal
from tests.command_line import scenes

PROGRAM = [sys.executable, "-m", "recovery_journal.cli.main"]

# Each prints by another way: the help, an early option, tables, lines, JSON, a loop.
PRINTING = (
    "--help",
    "status --help",
    "--version",
    "status",
    "status --json",
    "log --after 0",
    "log --after 0 --json",
    "history a-1",
    "rebuild --check --json",
    "run",
)


@pytest.fixture
def options(journal: Journal, server_dsn: str, schema: str) -> list[str]:
    for number in range(30):
        scenes.held(journal, f"a-{number}", worker_id="w-1")
    return ["--dsn", server_dsn, "--schema", schema]


def call(command: str, options: list[str]) -> list[str]:
    return [*PROGRAM, *options, *command.split()]


@pytest.mark.parametrize("is_error_too", [False, True])
@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_that_goes_away_is_no_error(
    options: list[str], command: str, *, is_error_too: bool
) -> None:
    errors = subprocess.STDOUT if is_error_too else subprocess.PIPE

    with subprocess.Popen(call(command, options), stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        process.stdout.close()
        complaint = process.stderr.read() if process.stderr else b""

    assert b"Traceback" not in complaint
    assert b"recovery-journal:" not in complaint
    assert process.returncode == ExitCode.PIPE_CLOSED


@pytest.mark.parametrize("command", ["nonsense", "history unknown", ""])
def test_an_error_message_without_a_reader_ends_the_same_way(
    options: list[str], command: str
) -> None:
    with subprocess.Popen(
        call(command, options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        process.stdout.close()

    assert process.returncode == ExitCode.PIPE_CLOSED


def test_a_reader_that_has_read_enough_is_no_error(options: list[str]) -> None:
    with subprocess.Popen(
        call("log --after 0 --json", options), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()

    assert first.startswith(b"{")
    assert complaint == b""
    assert process.returncode in (ExitCode.PIPE_CLOSED, ExitCode.DONE)  # it may have written all


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["--help", "status", "rebuild", "log --after 0 --json"])
def test_a_program_started_without_output_works_without_it(
    options: list[str], command: str, closed: str
) -> None:
    script = f'"$@" {closed}'

    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *call(command, options)],
        stderr=subprocess.PIPE,
        check=False,
    )

    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
@pytest.mark.parametrize("is_error_too", [False, True])
@pytest.mark.parametrize("command", ["--help", "status", "log --after 0 --json"])
def test_a_full_disk_is_reported_without_a_traceback(
    options: list[str], command: str, *, is_error_too: bool
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            call(command, options),
            stdout=full,
            stderr=full if is_error_too else subprocess.PIPE,
            check=False,
        )

    assert done.returncode == ExitCode.OUTPUT_FULL
    if not is_error_too:
        assert os.strerror(errno.ENOSPC) in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1
