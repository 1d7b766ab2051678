"""A program that runs a whole fleet in a folder of its own, and cleans up however it ends.

Ctrl-C and SIGTERM both end it early, and never in the midst of cleaning up.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Final, TypeVar

from scripts.harness.fleet import Fleet
from scripts.harness.life import Part, Role, Setting
from scripts.harness.screen import Screen
from scripts.harness.server import Server

INTERRUPTED: Final = 130
SERVER: Final = "server"

ServerT = TypeVar("ServerT", bound=Server)
Parts = Mapping[Role, tuple[int, Part]]


def run(name: str, screen: Screen, act: Callable[[Path], bool]) -> int:
    """Call `act` with a fresh folder; the exit code is 0 where it returns that all holds.

    Otherwise the folder stays, without the server's data. Ctrl-C and SIGTERM end the program early.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"rj-{name}-"))
    is_kept = True
    try:
        with handled(leave):
            is_kept = not act(folder)
        return 1 if is_kept else 0
    except KeyboardInterrupt:
        is_kept = False
        screen.say("interrupted; every process that was started has ended")
        return INTERRUPTED
    finally:
        shutil.rmtree(folder / SERVER, ignore_errors=True)
        if is_kept:
            screen.say(f"logs and records of the processes are in {folder}")
        else:
            shutil.rmtree(folder)


@contextmanager
def started_server(make: Callable[[Path], ServerT], folder: Path) -> Iterator[ServerT]:
    """A server below this folder, whose log stays there."""
    data = folder / SERVER
    data.mkdir()
    with ExitStack() as stack:
        with held_back():  # half a server is hard to clean up
            server = make(data)
            stack.enter_context(server)
        stack.callback(server.keep_log, folder / "server.log")
        yield server


@contextmanager
def started_fleet(setting: Setting, parts: Parts) -> Iterator[Fleet]:
    """The processes of these parts; none of them is left at the end."""
    with ExitStack() as stack:
        with held_back():  # a process that is forked here would be interrupted as well
            fleet = stack.enter_context(Fleet(setting, parts))
        stack.callback(ignore_all)
        yield fleet


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
