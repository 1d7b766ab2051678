"""Programs that a test starts, kills, suspends and wakes."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from tests.acceptance.stop import Settings
from tests.rules.scenes import LIMIT_S, until

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Program:
    """One process of its own."""

    process: subprocess.Popen[bytes]

    def until_said(self, line: str) -> None:
        """Wait for its next line, which must be this one."""
        assert self.said() == line

    def said(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
        assert readable, f"the program said nothing for {LIMIT_S} s"
        return self.process.stdout.readline().decode().rstrip("\n")

    def kill(self) -> None:
        """SIGKILL; return once it is gone."""
        self.process.kill()
        self.process.wait(LIMIT_S)

    def suspend(self) -> None:
        """SIGSTOP; return once it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        process = psutil.Process(self.process.pid)
        until(lambda: process.status() == psutil.STATUS_STOPPED, "the program to stand still")

    def wake(self) -> None:
        """SIGCONT, and on from the boundary."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        os.write(self.process.stdin.fileno(), b"\n")

    def until_ended(self) -> int:
        """Its exit code."""
        return self.process.wait(LIMIT_S)


@contextmanager
def started(module: str, settings: Settings) -> Iterator[Program]:
    """A program that has reached its boundary."""
    with launched(module, settings) as program:
        program.until_said(settings.stop_at)
        yield program


@contextmanager
def launched(module: str, settings: Settings) -> Iterator[Program]:
    """A program that has just been started. It is killed at the end."""
    command = [sys.executable, "-m", module, msgspec.json.encode(settings).decode()]
    # Without a buffer of ours, in which a line may lie while we wait for it at the pipe.
    with subprocess.Popen(
        command, cwd=ROOT, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        program = Program(process)
        try:
            yield program
        finally:
            program.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs: a process that has ended and is not reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
