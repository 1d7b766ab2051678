"""Guards a child: a process between it and its parent ends it, and everything that it has started.

    parent      threads, connections
      |         deadlines, kill  v  ^  how the child ended
    guardian    one thread, no connection; takes over what the child's processes leave (Linux)
      |         forks, kills
    child       the user's code; its link to the parent carries messages both ways

The guardian ends the child at its deadline, whatever the child's interpreter does, and whatever its
parent does; and with its parent, whose end closes the guardian's link. Where the child has ended,
so has everything that it has started: its group, and on Linux what has left that.
"""

import gc
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import psutil
from msgspec import Struct

from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.process.forks import (
    LIBC,
    POLL_S,
    RAISED,
    ForkedChild,
    Life,
    die_with,
    live_and_leave,
    pidfd,
)

PR_SET_CHILD_SUBREAPER: Final = 36  # of linux/prctl.h
START_LIMIT_S: Final = 10.0
END_LIMIT_S: Final = 5.0
PAUSE_S: Final = 0.001
GO: Final = b"go"


class Started(Struct, frozen=True, tag=True):
    """The guardian's first message: the child's process, or why there is none."""

    pid: int = 0
    errno: int = 0


class Ended(Struct, frozen=True, tag=True):
    """The guardian's last message: the child's exit code, and whether its deadline had passed."""

    exit_code: int
    is_overdue: bool


class Kill(Struct, frozen=True, tag=True):
    """An order of the parent."""


class Extend(Struct, frozen=True, tag=True):
    """A later deadline of the child, by `elapsed_s`'s clock."""

    deadline: float


class GuardedChild:
    """A forked process with a deadline, behind its guardian. `link` is that between the child and
    its parent. A suspended parent cannot kill it, so its guardian does at the deadline."""

    def __init__(self, live: Life, *, deadline: float) -> None:
        """Raises `OSError` where no more processes are available."""
        self.link, theirs = Pipe(duplex=True)
        try:
            self._guardian = ForkedChild(
                partial(_guard, live, self.link, theirs, deadline), dies_with_parent=False
            )
        except OSError:
            self.link.close()
            raise
        finally:
            theirs.close()
        self._ended: Ended | None = None
        self._has_read_ended = False
        self.pid = self._started()
        with suppress(OSError):  # it is gone already
            self.link.send_bytes(GO)
        self._pidfd = pidfd(self.pid)
        os.set_blocking(self._guardian.link.fileno(), False)

    def extend(self, deadline: float) -> None:
        """Extend its deadline to this time, by `elapsed_s`'s clock. Callable from any thread."""
        self._order(Extend(deadline))

    def is_done_within(self, limit_s: float) -> bool:
        """Wait, up to a limit, for its message or its end. Forks of its own may keep its link open
        beyond that."""
        if self.is_gone_within(0):
            return True
        files: list[Connection | int] = [self.link]
        if self._guardian.pidfd is not None:
            files.append(self._guardian.pidfd)
        return bool(wait(files, limit_s))

    def is_gone_within(self, limit_s: float) -> bool:
        """Wait, up to a limit, for the end of it and of all that it has started."""
        return self._guardian.is_gone_within(limit_s)

    def kill(self) -> None:
        """Kill it and all that it has started, stopped or not; return once that is gone."""
        if self._guardian.is_gone_within(0):
            return
        if self._pidfd is not None:  # at once, whatever its guardian does
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._order(Kill())
        if not self._guardian.is_gone_within(END_LIMIT_S):  # it is suspended
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._guardian.kill()

    def close(self) -> None:
        """Kill it, if it is alive, and release what the parent has open for it."""
        try:
            self.kill()
            self._read_ended()
        finally:
            self._guardian.close()
            self.link.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None

    @property
    def exit_code(self) -> int | None:
        """How it ended: a negative number is a signal's. None where that is not known."""
        self._read_ended()
        return None if self._ended is None else self._ended.exit_code

    @property
    def is_overdue(self) -> bool:
        """Whether it was ended at its deadline."""
        self._read_ended()
        return self._ended is not None and self._ended.is_overdue

    def _read_ended(self) -> None:
        """Read the guardian's last message, once it is gone."""
        if self._has_read_ended or not self._guardian.is_gone_within(0):
            return
        self._has_read_ended = True
        try:
            self._ended = msgspec.msgpack.decode(self._guardian.link.recv_bytes(), type=Ended)
        except (OSError, EOFError):  # it was killed, so nothing has ended the child's group yet
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _order(self, order: Kill | Extend) -> None:
        with suppress(OSError):  # it is gone, or stopped and reads nothing
            self._guardian.link.send_bytes(msgspec.msgpack.encode(order))

    def _started(self) -> int:
        message = Started()
        with suppress(OSError, EOFError):
            if self._guardian.link.poll(START_LIMIT_S):
                message = msgspec.msgpack.decode(self._guardian.link.recv_bytes(), type=Started)
        if message.pid:
            return message.pid
        self._guardian.close()
        self.link.close()
        raise OSError(
            message.errno, os.strerror(message.errno) if message.errno else "its guardian died"
        )


def _guard(
    live: Life, parents: Connection, theirs: Connection, deadline: float, control: Connection
) -> int:
    """The guardian's whole life."""
    parents.close()
    gc.freeze()
    gc.disable()
    if sys.platform.startswith("linux"):
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guardian_id = os.getpid()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, none is reaped
    try:
        child_id = os.fork()
    except OSError as error:
        control.send_bytes(msgspec.msgpack.encode(Started(errno=error.errno or 0)))
        return RAISED
    if child_id == 0:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        _begin(live, theirs, control, guardian_id)
    theirs.close()
    with suppress(ProcessLookupError, PermissionError):  # the child has done it, or is gone
        os.setpgid(child_id, child_id)
    with suppress(OSError):  # the parent is gone: that is found next
        control.send_bytes(msgspec.msgpack.encode(Started(pid=child_id)))
    is_overdue = _watch(child_id, control, deadline)
    status = _end_all(child_id)
    ended = Ended(os.waitstatus_to_exitcode(status), is_overdue)
    with suppress(OSError):
        control.send_bytes(msgspec.msgpack.encode(ended))
    return 0


def _begin(live: Life, link: Connection, control: Connection, guardian_id: int) -> NoReturn:
    control.close()
    gc.enable()
    live_and_leave(partial(_live, live, link, guardian_id))


def _live(live: Life, link: Connection, guardian_id: int) -> int:
    os.setpgid(0, 0)
    die_with(guardian_id)
    link.recv_bytes()  # its parent knows it: only then may its work begin
    return live(link)


def _watch(child_id: int, control: Connection, deadline: float) -> bool:
    """Return once the child has ended, or must; whether its deadline had passed."""
    order = msgspec.msgpack.Decoder(Kill | Extend)
    ended = pidfd(child_id)
    waited_for: list[Connection | int] = [control] if ended is None else [control, ended]
    longest_s = POLL_S if ended is None else None
    while not _has_ended(child_id):
        try:
            while control.poll(0):
                message = order.decode(control.recv_bytes())
                if isinstance(message, Kill):
                    return False
                deadline = max(deadline, message.deadline)
        except (OSError, EOFError):  # the parent is gone
            return False
        left_s = deadline - elapsed_s()
        if left_s <= 0:
            return True
        wait(waited_for, left_s if longest_s is None else min(left_s, longest_s))
    return False


def _has_ended(child_id: int) -> bool:
    """Whether it has ended; it is not reaped, so that its number stays its own."""
    return bool(psutil.Process(child_id).status() == psutil.STATUS_ZOMBIE)


def _end_all(child_id: int) -> int:
    """Kill the child's group, and then what the kernel has given to its guardian meanwhile; return
    the child's status once all are gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child_id, signal.SIGKILL)  # its number is its own until it is reaped
    _, status = os.waitpid(child_id, 0)
    give_up_at = time.monotonic() + END_LIMIT_S
    with suppress(ChildProcessError):  # none is left
        while time.monotonic() < give_up_at:  # or the kernel keeps one
            for pid in _children():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                time.sleep(PAUSE_S)
    return status


def _children() -> list[int]:
    """The processes whose parent is this one."""
    try:
        return [int(it) for it in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []
