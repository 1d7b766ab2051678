"""Forked processes that work side by side, count their work and end with their parent."""

import gc
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from ctypes import Array, c_longlong
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, TypeAlias

from recovery_journal.domain.errors import ProcessLost
from recovery_journal.process.signals import SIGNALS

TICK_S: Final = 0.1
DEATH_LIMIT_S: Final = 10.0
ORPHANED: Final = 80

# A block's objects hold no cycles, so a search for them at every thousandth object is wasted.
FEWEST_FOR_COLLECTION: Final = 500_000

Count = Callable[[int], object]
Work = Callable[[int, Count], None]
"""Called with its number, from 0, and a function to which it reports how much more it has done."""

_Counts: TypeAlias = "Array[c_longlong]"
"""How much each process has done, in memory that all share."""

_Child: TypeAlias = tuple[BaseProcess, Connection]
"""A process, and the link on which it reports an error."""

# A fork has the user's projections as they are, wherever they were defined.
_context = multiprocessing.get_context("fork")


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
    counts = _context.RawArray(c_longlong, process_count)
    children: list[_Child] = []

    def check() -> None:
        on_count(sum(counts))
        for process, link in children:
            _require_healthy(process, link)

    try:
        children.extend(_started(work, no, counts) for no in range(process_count))
        while running := [it.sentinel for it, _ in children if it.exitcode is None]:
            wait(running, timeout=TICK_S)
            check()
        # They may have reported more between the last poll and their ends.
        check()
    finally:
        for process, _ in children:
            process.kill()
        for process, link in children:
            process.join(DEATH_LIMIT_S)
            link.close()


def _started(work: Work, no: int, counts: _Counts) -> _Child:
    here, there = _context.Pipe(duplex=False)
    given = (work, no, counts, there, os.getpid())
    process = _context.Process(target=_run, args=given, daemon=True)
    process.start()
    there.close()
    return process, here


def _require_healthy(process: BaseProcess, link: Connection) -> None:
    """Raise what a process raised. A report is read also from one that has ended."""
    if link.poll():
        try:
            error: Exception = link.recv()
        except EOFError:  # it closed the link, as every end does
            pass
        else:
            raise error
    if process.exitcode:
        raise ProcessLost("rebuild", process_id=process.pid or 0, exit_code=process.exitcode)


def _run(work: Work, no: int, counts: _Counts, link: Connection, parent_id: int) -> None:
    """The child's whole life."""
    for number in SIGNALS:  # the parent's handlers are not ours
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
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


def _pickled(error: Exception) -> bytes:
    try:
        pickle.loads(pickled := pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a user's exception may be anything
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled
