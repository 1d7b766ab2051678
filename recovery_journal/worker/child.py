"""A child process that does one piece of work, dies with its parent and leaves a result."""

import os
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import msgspec
from msgspec import Struct

from recovery_journal.process import forks
from recovery_journal.process.guardian import GuardedChild
from recovery_journal.process.leftovers import leave_to_parent, settle_own
from recovery_journal.process.signals import has_noted_a_signal
from recovery_journal.worker.outcome import Outcome

NOTICE_S: Final = 0.25
SIGNALLED_S: Final = 2.0

DRAIN: Final = b"drain"

_parent: Final[list[Connection]] = []
"""In a child: its link."""


class ChildResult(Struct, frozen=True, kw_only=True):
    """A child's result: how its work ended. A child that is killed leaves none."""

    outcome: Outcome
    error_class: str = ""
    message: str = ""


class ExitCode(IntEnum):
    """The exit code of a child, for tools that inspect processes; close to the codes of
    sysexits.h."""

    ENDED = 0
    RAISED = forks.RAISED
    INTERRUPTED = 75
    LEASE_LOST = 79
    ORPHANED = forks.ORPHANED


EXIT_CODES: Final = {
    Outcome.FAILED: ExitCode.RAISED,
    Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    Outcome.LOST: ExitCode.LEASE_LOST,
}


class Child(GuardedChild):
    """A process that works under a deadline and leaves a result."""

    def __init__(self, work: Callable[[], ChildResult], *, deadline: float) -> None:
        super().__init__(partial(_live, work), deadline=deadline)
        # The parent waits for the process, and never for its result.
        os.set_blocking(self.link.fileno(), False)

    def drain(self) -> None:
        """Note that its worker drains: an error of its work is then no failure."""
        with suppress(OSError):
            self.link.send_bytes(DRAIN)

    def result(self) -> ChildResult | None:
        """The child's result, if any. Call this only once the child is gone."""
        try:
            return msgspec.msgpack.decode(self.link.recv_bytes(), type=ChildResult)
        except (OSError, EOFError):  # it left no result, or died in the middle of it
            return ChildResult(outcome=Outcome.FENCED) if self.is_overdue else None

    @property
    def death(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code is None:
            return "child ended together with its guardian"
        return f"child died of signal {-code}" if code < 0 else f"child left with code {code}"


def is_draining() -> bool:
    """In the child: whether its worker drains. A signal to all processes may have ended a tool of
    the work before that was known, so this waits for it, and longer where this process has got the
    signal too."""
    with suppress(OSError):
        return bool(_parent) and _parent[0].poll(SIGNALLED_S if has_noted_a_signal() else NOTICE_S)
    return False


def _live(work: Callable[[], ChildResult], link: Connection) -> int:
    _parent.append(link)
    leave_to_parent()
    result = work()
    link.send_bytes(msgspec.msgpack.encode(result))
    settle_own()
    return EXIT_CODES.get(result.outcome, ExitCode.ENDED)
