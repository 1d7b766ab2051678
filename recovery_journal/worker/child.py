"""A child process that does one piece of work, dies with its parent and leaves a result."""

import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from recovery_journal.process import forks
from recovery_journal.process.forks import SignalMask, fork_in_group
from recovery_journal.worker.elapsed import elapsed_s
from recovery_journal.worker.outcome import Outcome

DEATH_LIMIT_S: Final = 10.0  # from SIGKILL to the end of the process
POLL_S: Final = 0.02
WATCH_S: Final = 1.0
DEADLINE: Final = struct.Struct("d")
LARGEST_RESULT: Final = 64 * 1024


class ChildResult(Struct, frozen=True, kw_only=True):
    """A child's result: how its work ended. A child that is killed leaves none."""

    outcome: Outcome
    error_class: str = ""
    message: str = ""


class ExitCode(IntEnum):
    """The exit code of a child, for tools that inspect processes; close to the codes of
    sysexits.h."""

    ENDED = 0
    RAISED = 70
    INTERRUPTED = 75
    LEASE_LOST = 79
    ORPHANED = forks.ORPHANED


EXIT_CODES: Final = {
    Outcome.FAILED: ExitCode.RAISED,
    Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    Outcome.LOST: ExitCode.LEASE_LOST,
}


class Child:
    """A forked process in a group of its own.

    It kills itself at the deadline, unless the parent extends that: a suspended parent cannot kill
    it.
    """

    def __init__(self, work: Callable[[], ChildResult], *, deadline: float) -> None:
        here, there = socket.socketpair()
        here.settimeout(0)  # the parent waits for the process, and never for its result
        try:
            self.pid = fork_in_group(partial(_run_child, work, here, there, deadline))
        except OSError:  # no more processes available
            here.close()
            raise
        finally:
            there.close()
        self._link = here
        self._pidfd = _pidfd(self.pid)
        self._status: int | None = None
        self._is_gone = False

    def extend(self, deadline: float) -> None:
        """Extend its deadline to this time, by `elapsed_s`'s clock. Callable from any thread."""
        with suppress(OSError):  # it is gone, or stopped and reads nothing
            self._link.send(DEADLINE.pack(deadline))

    def is_gone_within(self, limit_s: float) -> bool:
        """Wait for its end, up to a limit; an ended child is reaped."""
        deadline = time.monotonic() + limit_s
        while not self._is_gone:
            left_s = deadline - time.monotonic()
            if self._has_ended(max(left_s, 0)):
                self._reap()
            elif left_s <= 0:
                return False
        return True

    def kill(self) -> None:
        """Kill it and its group with SIGKILL, stopped or not; return once it is gone."""
        if self._is_gone:
            return
        self._kill_group()
        if not self.is_gone_within(DEATH_LIMIT_S):
            raise TimeoutError(
                f"child {self.pid} outlived SIGKILL by {DEATH_LIMIT_S:g} s: the kernel keeps it, "
                "see what it waits for, such as a file system that does not answer"
            )

    def result(self) -> ChildResult | None:
        """The child's result, if any. Call this only once the child is gone."""
        try:
            return msgspec.msgpack.decode(self._link.recv(LARGEST_RESULT), type=ChildResult)
        except (OSError, msgspec.DecodeError):  # it left no result, or died in the middle of it
            return None

    @property
    def death(self) -> str:
        """How it ended, in words."""
        if self._status is None:
            return "child ended, and another part of the program took its status"
        code = os.waitstatus_to_exitcode(self._status)
        return f"child died of signal {-code}" if code < 0 else f"child left with code {code}"

    def close(self) -> None:
        """Release what the parent has open for it."""
        self._link.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _has_ended(self, limit_s: float) -> bool:
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(limit_s * 1000))
        time.sleep(min(limit_s, POLL_S))
        return self._took_status(os.WNOHANG)

    def _reap(self) -> None:
        if self._pidfd is not None:
            # Until it is reaped its number is its own, so the signal cannot reach another group.
            self._kill_group()
            self._took_status(0)
        self._is_gone = True

    def _took_status(self, options: int) -> bool:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # SIGCHLD is ignored, or other code waits for every child
            return True
        if pid == self.pid:
            self._status = status
        return pid == self.pid

    def _kill_group(self) -> None:
        # macOS refuses to signal a group that has ended but is not reaped.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _pidfd(pid: int) -> int | None:
    """A file that becomes readable when the process ends, where the system has such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _run_child(
    work: Callable[[], ChildResult],
    inherited: socket.socket,
    link: socket.socket,
    deadline: float,
    mask: SignalMask,
) -> NoReturn:
    """The child's whole life. It never returns into the parent's code."""
    code = int(ExitCode.RAISED)
    try:
        inherited.close()
        watch = threading.Thread(target=watch_parent, args=(link, deadline), daemon=True)
        watch.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        result = work()
        link.sendall(msgspec.msgpack.encode(result))
        code = EXIT_CODES.get(result.outcome, ExitCode.ENDED)
    except BaseException:  # noqa: BLE001 - nothing may escape from a fork into the parent's loop
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):  # they have no reader any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def watch_parent(link: socket.socket, deadline: float) -> None:
    """Kill this process's group once the parent's end of the link has closed, or the deadline has
    passed without a later one. The child reports that first, because it is no crash."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    while (left_s := deadline - elapsed_s()) > 0:
        if not poll.poll(min(left_s, WATCH_S) * 1000):
            continue
        said = link.recv(DEADLINE.size)
        if len(said) < DEADLINE.size:
            break
        (deadline,) = DEADLINE.unpack(said)
    with suppress(OSError):  # the parent reads no more
        link.sendall(msgspec.msgpack.encode(ChildResult(outcome=Outcome.FENCED)))
    os.killpg(0, signal.SIGKILL)
