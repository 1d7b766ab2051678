"""Forked processes that work side by side, count their work and end with their parent."""

import gc
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import Array, c_longlong
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray
from typing import Final, TypeAlias

from recovery_journal.domain.errors import ProcessLost
from recovery_journal.process.forks import ORPHANED, ForkedChild

TICK_S: Final = 0.1

# A block's objects hold no cycles, so a search for them at every thousandth object is wasted.
FEWEST_FOR_COLLECTION: Final = 500_000

Count = Callable[[int], object]
Work = Callable[[int, Count], None]
"""Called with its number, from 0, and a function to which it reports how much more it has done."""

_Counts: TypeAlias = "Array[c_longlong]"
"""How much each process has done, in memory that all share."""


def side_by_side(work: Work, process_count: int, on_count: Count) -> None:
    """Run that many processes, and return when all have ended; `on_count` is called at intervals
    with how much all have done together.

    With a count of one, the work is done in this process. Raises what the first of them raised, or
    `ProcessLost` for one that died without a report; the others are killed then, as they are at a
    signal.
    """
    if process_count == 1:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            on_count(done)

        work(0, count)
        return
    counts = RawArray(c_longlong, process_count)

    def check() -> None:
        on_count(sum(counts))
        for child in children:
            _require_healthy(child)

    with ExitStack() as stack:
        children: list[ForkedChild] = []
        for no in range(process_count):
            children.append(ForkedChild(partial(_run, work, no, counts, os.getpid())))
            stack.callback(children[-1].close)
        while running := [it.link for it in children if not it.is_gone_within(0)]:
            wait(running, timeout=TICK_S)
            check()
        # They may have reported more between the last poll and their ends.
        check()


def _require_healthy(child: ForkedChild) -> None:
    """Raise what a process raised. A report is read also from one that has ended."""
    if child.link.poll():
        try:
            error: Exception = child.link.recv()
        except EOFError:  # it closed the link, as every end does
            pass
        else:
            raise error
    if child.exit_code:
        raise ProcessLost("rebuild", process_id=child.pid, exit_code=child.exit_code)


def _run(work: Work, no: int, counts: _Counts, parent_id: int, link: Connection) -> int:
    """The child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    gc.freeze()
    gc.set_threshold(FEWEST_FOR_COLLECTION)

    def count(more: int) -> None:
        counts[no] += more
        if os.getppid() != parent_id:
            os._exit(ORPHANED)

    try:
        work(no, count)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        link.send_bytes(_pickled(error))
    return 0


def _pickled(error: Exception) -> bytes:
    try:
        pickle.loads(pickled := pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a user's exception may be anything
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled
