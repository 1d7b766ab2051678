"""Standard output and error: missing, full, or with a reader that goes away, as `head` does."""

import errno
import os
import sys
from typing import Any, Final, TextIO

# The second is the error of a socket that is standard output.
READER_GONE: Final = (BrokenPipeError, ConnectionResetError)


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def prepare_output() -> None:
    """Make printing safe: a character that the terminal's encoding lacks is shown escaped, and a
    stream that the program was started without is replaced."""
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
    """Whether a command ends because its output has no reader any more.

    On a closed pipe the libraries of the command line end the program with code 1; the pipe's error
    is then the context.
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
    """Discard what is buffered, and all that is printed from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _streams():
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _nowhere_at(number: int) -> TextIO:
    """A stream that drops its input. Where the file's number is free it is taken: otherwise the
    next connection would get it, and with it the output of a child process."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.fstat(number)
    except OSError:
        os.dup2(nowhere, number)
    return os.fdopen(nowhere, "w", encoding="utf-8")


def _streams() -> list[TextIO]:
    return [sys.stdout, sys.stderr]
