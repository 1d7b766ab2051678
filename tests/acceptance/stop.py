"""Where a program of these tests stands still, until its test kills or releases it."""

import os
import sys

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a program: where the journal is, and the boundary at which to stand still."""

    dsn: str
    schema: str
    stop_at: str


class Stop:
    """Says on standard output that the boundary is reached, and waits for a byte."""

    def __init__(self, stop_at: str) -> None:
        self._stop_at: str | None = stop_at

    def reach(self, boundary: str) -> None:
        """Stand still if this is the boundary, the first time."""
        if boundary == self._stop_at:
            self._stop_at = None
            say(boundary)
            os.read(sys.stdin.fileno(), 1)


def say(line: str) -> None:
    """One line for the test to read."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def settings() -> Settings:
    """From the command line."""
    return msgspec.json.decode(sys.argv[1], type=Settings)
