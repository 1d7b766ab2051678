"""Forks children that end with their parent, and release what they inherited."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Final, NoReturn, Protocol
from weakref import WeakSet

from recovery_journal.process.output import flush_output, forgive_output
from recovery_journal.process.signals import SIGNALS, note_signals

ORPHANED: Final = 80
"""The exit code of a child whose parent was gone before the kernel could be asked to watch it."""
RAISED: Final = 70
"""The exit code of a child whose life ended in an exception that nothing caught."""

DEATH_LIMIT_S: Final = 10.0  # from SIGKILL to the end of the process
POLL_S: Final = 0.02

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
LIBC: Final = ctypes.CDLL(None, use_errno=True)

Life = Callable[[Connection], int]
"""A child's whole life: called with its end of the link, returns its exit code."""


class ForkedChild:
    """A forked process, with a link between it and its parent.

    It has a group of its own, so that a terminal's Ctrl-C reaches only the parent and a kill
    includes what the child has forked itself. The signals that stop a program are noted by it and
    do nothing else: its parent ends it.
    """

    def __init__(self, live: Life, *, dies_with_parent: bool = True) -> None:
        """Raises `OSError` where no more processes are available."""
        self.link, theirs = Pipe(duplex=True)
        try:
            self.pid = self._fork(live, theirs, dies_with_parent=dies_with_parent)
        except OSError:
            self.link.close()
            raise
        finally:
            theirs.close()
        self.pidfd = pidfd(self.pid)
        self._status: int | None = None
        self._is_gone = False

    def is_gone_within(self, limit_s: float) -> bool:
        """Wait for its end, up to a limit; an ended child is reaped."""
        deadline = time.monotonic() + limit_s
        while not self._is_gone:
            left_s = max(deadline - time.monotonic(), 0)
            if self.pidfd is None:
                time.sleep(min(left_s, POLL_S))
                self._is_gone = self._took_status(os.WNOHANG)
            elif wait([self.pidfd], left_s):
                # Until it is reaped its number is its own, so the signal cannot reach another
                # group.
                self._kill_group()
                self._is_gone = self._took_status(0)
            if left_s == 0:
                break
        return self._is_gone

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

    @property
    def exit_code(self) -> int | None:
        """How it ended: a negative number is a signal's. None where it lives, or where another part
        of the program took its status."""
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def close(self) -> None:
        """Kill it, if it is alive, and release what the parent has open for it."""
        try:
            self.kill()
        finally:
            self.link.close()
            if self.pidfd is not None:
                os.close(self.pidfd)
                self.pidfd = None

    def _fork(self, live: Life, link: Connection, *, dies_with_parent: bool) -> int:
        parent_id = os.getpid() if dies_with_parent else None
        flush_output()
        # A signal between the fork and the child's own handlers would run the parent's handlers in
        # the child.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            child_id = os.fork()
            if child_id == 0:
                self.link.close()
                _begin(live, link, parent_id, held)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        with suppress(ProcessLookupError, PermissionError):  # the child has done it, or is gone
            os.setpgid(child_id, child_id)
        return child_id

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


def pidfd(pid: int) -> int | None:
    """A file that becomes readable when the process ends, where the system has such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _begin(
    live: Life, link: Connection, parent_id: int | None, mask: set[int | signal.Signals]
) -> NoReturn:
    def begin() -> int:
        os.setpgid(0, 0)
        note_signals()
        forgive_output()
        if parent_id is not None:
            die_with(parent_id)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return live(link)

    live_and_leave(begin)


def live_and_leave(live: Callable[[], int]) -> NoReturn:
    """In a fork: end this process with the code that its life returns. Nothing of it escapes into
    the code of its parent."""
    code = RAISED
    try:
        code = live()
    except BaseException:  # noqa: BLE001
        traceback.print_exc(file=sys.stderr)
    finally:
        flush_output()
        os._exit(code)


def die_with(parent_id: int) -> None:
    """Where the kernel supports it, make it end this process with its parent: otherwise this
    process would continue to renew a dead worker's lease by its writes. Elsewhere the child has to
    notice by itself."""
    if sys.platform.startswith("linux"):
        LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_id:  # it was gone before the kernel was asked
        os._exit(ORPHANED)


@contextmanager
def ending_own_forks() -> Iterator[None]:
    """Within this context, a process that the user's code has forked ends where it falls out of
    that code: by returning, by an error or by `sys.exit`. It must not speak for this process."""
    process_id = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != process_id:
            _leave(error)
        raise
    if os.getpid() != process_id:
        _leave(None)


def _leave(error: BaseException | None) -> NoReturn:
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error, file=sys.stderr)
    flush_output()
    os._exit(code)


class Inherited(Protocol):
    """Something that a forked child must not keep."""

    def leave(self) -> None:
        """In the child: release it, without a message to other holders of it."""


_inherited: Final[WeakSet[Inherited]] = WeakSet()


def leave_in_children(one: Inherited) -> None:
    """Call its `leave` in every forked child, for as long as the object lives."""
    _inherited.add(one)


def _leave_all() -> None:
    for one in list(_inherited):
        one.leave()


# A hook cannot be removed, so there is one for all objects: a process may create and drop any
# number of them.
os.register_at_fork(after_in_child=_leave_all)
