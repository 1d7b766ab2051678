"""Forks children that end with their parent, and release what they inherited."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, Protocol, TypeAlias
from weakref import WeakSet

from recovery_journal.process.signals import SIGNALS

ORPHANED: Final = 80
"""The exit code of a child whose parent was gone before the kernel could be asked to watch it."""
UNBORN: Final = 70
"""The exit code of a child that could not begin its life."""

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
LIBC: Final = ctypes.CDLL(None, use_errno=True)

SignalMask: TypeAlias = set[int | signal.Signals]


def fork_in_group(live: Callable[[SignalMask], NoReturn]) -> int:
    """Fork a process in a group of its own, so that a terminal's Ctrl-C reaches only the parent and
    a kill includes what the child has forked itself; return its id. Raises `OSError` where no more
    processes are available.

    `live` is its whole life. SIGTERM and SIGINT are blocked when it begins and have their default
    action: it sets the mask that it is given as soon as it is ready for them.
    """
    parent_id = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between the fork and the child's own handlers would run the parent's handlers in the
    # child.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        child_id = os.fork()
        if child_id == 0:
            _begin(live, parent_id, held)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    with suppress(ProcessLookupError, PermissionError):  # the child has done it, or is gone
        os.setpgid(child_id, child_id)
    return child_id


def _begin(live: Callable[[SignalMask], NoReturn], parent_id: int, mask: SignalMask) -> NoReturn:
    try:
        os.setpgid(0, 0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _die_with_parent(parent_id)
        live(mask)
    except BaseException:  # noqa: BLE001 - nothing may escape from a fork into the parent's code
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(UNBORN)


def _die_with_parent(parent_id: int) -> None:
    """Where the kernel supports it, make it end this process with its parent: otherwise this
    process would continue to renew a dead worker's lease by its writes. Elsewhere the child has to
    notice by itself."""
    if sys.platform.startswith("linux"):
        LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_id:  # it was gone before the kernel was asked
        os._exit(ORPHANED)


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
