"""Ctrl-C and SIGTERM: both break the demonstration off, and never in the midst of tidying up."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SOON_S: Final = 0.02


def leave(number: int, frame: FrameType | None) -> None:
    """Leave from wherever we are, through everything that tidies up. Out of a finalizer nothing
    can be raised: from there we leave soon after."""
    if _is_finalizing(frame):
        Timer(SOON_S, os.kill, (os.getpid(), number)).start()
    else:
        raise KeyboardInterrupt


def ignore_all() -> None:
    """From now on: what is being tidied up is tidied up. Programs that we start notice nothing."""
    for number in SIGNALS:
        signal.signal(number, lambda _number, _frame: None)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Within, both signals go to this handler."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def held_back() -> Iterator[None]:
    """Within, nothing is broken off; after it, at once."""
    asked: list[int] = []
    with handled(lambda number, _frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


def _is_finalizing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
