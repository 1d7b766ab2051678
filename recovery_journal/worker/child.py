"""A child process that does one piece of work, dies with its parent and leaves a result."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import msgspec
from msgspec import Struct

from recovery_journal.process import forks
from recovery_journal.process.forks import ForkedChild
from recovery_journal.process.leftovers import leave_to_parent, settle_own
from recovery_journal.process.signals import SIGNALS, has_noted_a_signal
from recovery_journal.worker.elapsed import elapsed_s
from recovery_journal.worker.outcome import Outcome

WATCH_S: Final = 1.0
NOTICE_S: Final = 0.25
SIGNALLED_S: Final = 2.0

_draining: Final = threading.Event()


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


class Child(ForkedChild):
    """A process that works under a deadline and leaves a result.

    It kills itself at the deadline, unless the parent extends that: a suspended parent cannot kill
    it.
    """

    def __init__(self, work: Callable[[], ChildResult], *, deadline: float) -> None:
        super().__init__(partial(_live, work, deadline))
        # The parent waits for the process, and never for its result.
        os.set_blocking(self.link.fileno(), False)

    def extend(self, deadline: float) -> None:
        """Extend its deadline to this time, by `elapsed_s`'s clock. Callable from any thread."""
        with suppress(OSError):  # it is gone, or stopped and reads nothing
            self.link.send_bytes(msgspec.msgpack.encode(deadline))

    def drain(self) -> None:
        """Note that its worker drains: an error of its work is then no failure."""
        with suppress(OSError):
            self.link.send_bytes(msgspec.msgpack.encode(None))

    def result(self) -> ChildResult | None:
        """The child's result, if any. Call this only once the child is gone."""
        try:
            return msgspec.msgpack.decode(self.link.recv_bytes(), type=ChildResult)
        except (OSError, EOFError):  # it left no result, or died in the middle of it
            return None

    @property
    def death(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code is None:
            return "child ended, and another part of the program took its status"
        return f"child died of signal {-code}" if code < 0 else f"child left with code {code}"


def is_draining() -> bool:
    """In the child: whether its worker drains. A signal to all processes may have ended a tool of
    the work before that was known, so this waits for it, and longer where this process has got the
    signal too."""
    return _draining.wait(SIGNALLED_S if has_noted_a_signal() else NOTICE_S)


def _live(work: Callable[[], ChildResult], deadline: float, link: Connection) -> int:
    # Signals are for the thread of the work, where they interrupt a blocking call.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    is_done = threading.Event()
    threading.Thread(target=watch_parent, args=(link, deadline, is_done), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    leave_to_parent()
    result = work()
    link.send_bytes(msgspec.msgpack.encode(result))
    is_done.set()
    settle_own()
    return EXIT_CODES.get(result.outcome, ExitCode.ENDED)


def watch_parent(link: Connection, deadline: float, is_done: threading.Event) -> None:
    """Kill this process's group once the parent's end of the link has closed, or the deadline has
    passed without a later one before the work was done. The child reports that first, because it is
    no crash."""
    with suppress(OSError, EOFError):  # the parent is gone, or reads no more
        while True:
            left_s = deadline - elapsed_s()
            # Read first: a call that holds the interpreter may have kept this thread from doing so.
            if link.poll(WATCH_S if is_done.is_set() else max(min(left_s, WATCH_S), 0)):
                later = msgspec.msgpack.decode(link.recv_bytes(), type=float | None)
                if later is None:
                    _draining.set()
                else:
                    deadline = later
            elif left_s <= 0 and not is_done.is_set():
                break
        link.send_bytes(msgspec.msgpack.encode(ChildResult(outcome=Outcome.FENCED)))
    os.killpg(0, signal.SIGKILL)
