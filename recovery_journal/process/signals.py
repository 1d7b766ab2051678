"""Stops loops cleanly: on SIGTERM or SIGINT, and those of several threads together."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Within this context, SIGTERM and SIGINT set the event; a second signal has its previous
    action.

    Only the main thread may handle signals; elsewhere only the event stops the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def running_beside(*loops: Callable[[], object], stop: threading.Event) -> Iterator[None]:
    """Within this context, run each loop in a thread of its own until it ends, which sets the
    event. At the end of the context set it, wait for the loops, and raise the first error of one.

    The threads are daemons, so that a second request to stop never waits for them.
    """
    failures: list[BaseException] = []

    def guard(loop: Callable[[], object]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - handed to the thread of the context
            failures.append(error)
        finally:
            stop.set()

    threads = [threading.Thread(target=guard, args=(loop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
