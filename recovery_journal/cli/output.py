"""Standard output and error: missing, full, or with a reader that goes away, as `head` does."""

import errno
import os
import sys
from typing import Any, Final, TextIO

# A socket that is standard output refuses with the second.
READER_GONE: Final = (BrokenPipeError, ConnectionResetError)


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def prepare_output() -> None:
    """Let printing neither fail for a letter that the terminal's encoding lacks, which is shown
    escaped, nor for a stream that the program was started without."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere_at(number))
        reconfigure: Any = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def is_output_full(error: BaseException) -> bool:
    """Whether the file system that takes the output takes no more. Such an error names no file."""
    return isinstance(error, OSError) and error.errno in FULL and error.filename is None


def is_reader_gone(error: BaseException) -> bool:
    """Whether a command ends because nobody reads its output any more.

    The libraries of the command line answer a closed pipe by leaving the program with code 1; the
    pipe's error is then the context.
    """
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, READER_GONE)
    return isinstance(error, READER_GONE)


def flush_output() -> None:
    """Write what is buffered, while an error can still be handled: at the interpreter's end its
    traceback would be printed."""
    for stream in _streams():
        stream.flush()


def discard_output() -> None:
    """Let what is buffered, and all that is printed from now on, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _streams():
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _nowhere_at(number: int) -> TextIO:
    """A stream that drops what it is given. Where the file's number is free it is taken: else the
    next connection would get it, and what a child process prints."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.fstat(number)
    except OSError:
        os.dup2(nowhere, number)
    return os.fdopen(nowhere, "w", encoding="utf-8")


def _streams() -> list[TextIO]:
    return [sys.stdout, sys.stderr]
