"""What every forked process of a fleet does, whatever its part: it lives until SIGTERM, ends with
whoever started it, and writes what it has to tell into a log of its own."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from scripts.storming.job import FOLDED, folded

AnswerT = TypeVar("AnswerT")

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
PAUSE_S: Final = 0.1

LIMITS: Final = rj.Limits(
    ttl_s=1.5,
    grace_s=0.3,
    session_grace_s=0.3,
    session_poll_s=0.05,
    sweeper_ttl_s=2.0,
    reducer_s=1.0,
    # A storm hits the same run again and again, which is no fault of the run's.
    policy=rj.Policy(crash_loop_count=1_000, raise_limit=1_000, backoff_s=0.1, backoff_limit_s=1),
)


class Setting(Struct, frozen=True, kw_only=True):
    """Where the journal is, where the processes leave what they have to tell, and after how long
    each ends itself: whoever started it does so long before, this is for the case that nobody is
    left."""

    dsn: str
    folder: Path
    schema: str = "storm"
    life_limit_s: int = 3_600

    @property
    def histories(self) -> Path:
        """What each process believes to have done."""
        return self.folder / "history"

    def dsn_of(self, name: str) -> str:
        """By which the server knows whose a connection is."""
        return make_conninfo(self.dsn, application_name=name)

    def told_count(self, role: str, what: str) -> int:
        """How often the processes of a role have told that."""
        logs = self.folder.glob(f"{role}-*.log")
        return sum(path.read_text(encoding="utf-8").count(f" {what} ") for path in logs)


Part: TypeAlias = Callable[[str, Setting], None]
"""What a process does under its name until it is asked to end."""


def live(part: Part, name: str, setting: Setting) -> None:
    """Play a part in this process, which was forked for it and is told to end by SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for whoever started us, and ends us all
    signal.alarm(setting.life_limit_s)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    said = os.open(setting.folder / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    part(name, setting)


def opened(name: str, setting: Setting) -> rj.Journal:
    """The journal, as soon as the server is there."""
    while True:
        try:
            return rj.open(
                setting.dsn_of(name),
                schema=setting.schema,
                limits=LIMITS,
                reducers={FOLDED: folded},
                must_exist=True,
            )
        except rj.Retry as problem:
            tell(problem)
        time.sleep(PAUSE_S)


def asked(call: Callable[[], AnswerT], stop: threading.Event) -> AnswerT | None:
    """The answer, asked for until there is one; None once this process is to end."""
    while not stop.is_set():
        try:
            return call()
        except rj.Retry as problem:
            tell(problem)
        stop.wait(PAUSE_S)
    return None


def asked_to_end() -> threading.Event:
    """Set by SIGTERM, from now on."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    return stop


def tell(what: object) -> None:
    """Into the log of this process, for whoever looks for the cause of a violation."""
    text = str(what) if isinstance(what, str | rj.Notice) else f"{type(what).__name__}: {what}"
    os.write(sys.stderr.fileno(), f"{time.monotonic():.3f} {os.getpid()} {text}\n".encode())
