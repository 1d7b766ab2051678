"""The command line as a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LONGEST_WAIT_S = 60
CHECKOUT = Path(__file__).resolve().parents[2]


class Spoken:
    """A running command, whose lines are read as they come. It does not outlive the test."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recovery_journal.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
        self.complaints = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @staticmethod
    def environment() -> dict[str, str]:
        """Ours, with the checkout on the path, wherever the process is started."""
        return {**os.environ, "PYTHONPATH": str(CHECKOUT)}

    def line(self) -> str:
        """The next line on standard output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def document(self) -> Any:
        """The next line, which is a JSON document."""
        return json.loads(self.line())

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for the condition, at most a minute."""
        give_up_at = time.monotonic() + LONGEST_WAIT_S
        while not is_so():
            assert time.monotonic() < give_up_at, "waited in vain"
            assert self._process.poll() is None, "it ended meanwhile"
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Send it to the process."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        _, self.complaints = self._process.communicate(timeout=LONGEST_WAIT_S)
        return self._process.returncode
