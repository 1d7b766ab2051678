"""Ctrl-C and SIGTERM: both break the demonstration off, and never in the midst of tidying up."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave from wherever we are, through everything that tidies up."""
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
