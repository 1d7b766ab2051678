"""Standard files that are closed, full or without a reader: no reason to fail, and no danger."""

import io
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


def open_standard_files() -> None:
    """Open the null device in place of standard files that are closed. Otherwise the next file that
    is opened, such as a connection to the server, would get the number of one of them, and all that
    a program prints would be sent to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003


def flush_output() -> None:
    """Write what is buffered, as far as that can be."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


def forgive_output() -> None:
    """From now on, what this process prints is lost where it cannot be written. Programs that it
    starts print to the null device where a reader is gone already: they would die of that."""
    for number in (1, 2):
        if _has_lost_its_reader(number):
            with Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), number)
    sys.stdout = _forgiving(sys.stdout)
    sys.stderr = _forgiving(sys.stderr)


def _has_lost_its_reader(number: int) -> bool:
    found = select.poll()
    found.register(number, 0)
    return any(event & select.POLLERR for _, event in found.poll(0))


def _forgiving(stream: TextIO) -> TextIO:
    try:
        raw = _ForgivingFile(stream.fileno(), "wb", closefd=False)
        raw.former = stream
    except (AttributeError, OSError, ValueError):  # it is no file, or there is none
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )


class _ForgivingFile(io.FileIO):
    former: TextIO
    """The stream in whose place it is. If nothing kept that, it would close their file, and the
    next file that is opened, such as a connection, would get its number."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        try:
            return super().write(data) or len(memoryview(data))
        except OSError:
            return len(memoryview(data))
