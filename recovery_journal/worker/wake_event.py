"""An event that can be waited for together with a socket."""

import os
import threading
import weakref
from contextlib import suppress
from multiprocessing.connection import wait


class WakeEvent(threading.Event):
    """Once set, its file is readable for ever. May be set by a signal's handler and any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._here, self._there = os.pipe()
        os.set_blocking(self._there, False)
        weakref.finalize(self, _close, self._here, self._there)

    def set(self) -> None:
        """Set the event."""
        super().set()
        with suppress(BlockingIOError):  # full, so it is readable
            os.write(self._there, b"!")

    def wait_with(self, other: int | None, limit_s: float) -> bool:
        """Wait until the event is set, the other file is readable or the time is over; return
        whether the event is set."""
        wait([self._here] if other is None else [self._here, other], limit_s)
        return self.is_set()


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
