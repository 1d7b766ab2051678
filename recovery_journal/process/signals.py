"""Stops loops cleanly: on signals, and those of several threads together."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that stop a program. A SIGHUP that was ignored at its start, as by `nohup`, does
not."""

_noted: Final = threading.Event()


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Within this context, the signals set the event; a second one has its previous action.

    Only the main thread may handle signals; elsewhere only the event stops the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _stopping()}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def note_signals() -> None:
    """In a child that its parent ends: only note these signals from now on. A service manager sends
    them to all processes, while the parent may still let the child finish. They are handled and
    not ignored, because programs that the child starts would inherit that."""
    for number in _stopping():
        signal.signal(number, _note)


def has_noted_a_signal() -> bool:
    """Whether this process has got one since `note_signals`."""
    return _noted.is_set()


def _note(_number: int, _frame: FrameType | None) -> None:
    _noted.set()


def _stopping() -> list[signal.Signals]:
    is_hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [it for it in SIGNALS if not (it is signal.SIGHUP and is_hangup_ignored)]


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
