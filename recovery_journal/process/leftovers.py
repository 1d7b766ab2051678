"""All that a program leaves to its normal end: exit handlers, threads, files with buffered text.

A forked child ends without those of its parent, which it must not run, so it sees to its own.
Python's means for that are not public; `tests/worker/test_leftovers.py` notices where they change.
"""

import atexit
import gc
import io
import logging
import threading
import weakref
from contextlib import suppress
from multiprocessing import process, util
from typing import Any, Final

BUFFERED: Final = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)

_finalize: Final[Any] = weakref.finalize
_atexit: Final[Any] = atexit
_threading: Final[Any] = threading
_logging: Final[Any] = logging
_util: Final[Any] = util
_process: Final[Any] = process


def leave_to_parent() -> None:
    """In a forked child, before its work: nothing that exists by now is its own to end."""
    _atexit._clear()  # noqa: SLF001
    for handler in _logging._handlerList:  # noqa: SLF001
        if isinstance(pending := getattr(handler(), "buffer", None), list):
            pending.clear()  # its parent will write these records
    atexit.register(logging.shutdown)
    _finalize._registry.clear()  # noqa: SLF001
    _finalize._registered_with_atexit = False  # noqa: SLF001
    _util._finalizer_registry.clear()  # noqa: SLF001
    _process._children = set()  # noqa: SLF001
    atexit.register(_util._exit_function)  # noqa: SLF001
    gc.freeze()  # what exists by now is not among the objects below


def settle_own() -> None:
    """After its work: wait for its threads, run its exit handlers, write what its files buffer."""
    _threading._shutdown()  # noqa: SLF001
    _atexit._run_exitfuncs()  # noqa: SLF001
    for found in gc.get_objects():
        if issubclass(type(found), BUFFERED):
            with suppress(OSError, ValueError):  # closed, or not for writing
                found.flush()
