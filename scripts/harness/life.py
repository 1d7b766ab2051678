"""The frame of every forked process of a fleet: it lives until SIGTERM, ends with the process that
started it, and writes into a log of its own."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

from msgspec import Struct
from psycopg.conninfo import make_conninfo

import recovery_journal as rj

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h


class Role(StrEnum):
    """The part of a process."""

    WORKER = "worker"
    SWEEPER = "sweeper"
    FOLLOWER = "follower"
    STARTER = "starter"
    REBUILDER = "rebuilder"
    READER = "reader"
    CALLER = "caller"


class Setting(Struct, frozen=True, kw_only=True):
    """Where the journal is, where the processes leave their logs, and after how many seconds each
    ends itself: the process that started it does so long before, but may have been killed."""

    dsn: str
    folder: Path
    schema: str = "journal"
    life_limit_s: int = 3_600

    @property
    def histories(self) -> Path:
        """The folder of the calls that each process recorded."""
        return self.folder / "history"

    def dsn_of(self, name: str) -> str:
        """The DSN by which the server knows whose a connection is."""
        return make_conninfo(self.dsn, application_name=name)

    def log_of(self, name: str) -> Path:
        """The log of a process."""
        return self.folder / f"{name}.log"

    def report_count(self, role: str, what: str) -> int:
        """How often the processes of a role have reported this."""
        logs = self.folder.glob(f"{role}-*.log")
        return sum(path.read_text(encoding="utf-8").count(f" {what} ") for path in logs)


Part: TypeAlias = Callable[[str, Setting], None]
"""The function of a process, which runs under its name until it is asked to end."""


def live(part: Part, name: str, setting: Setting) -> None:
    """Play a part in this process, which was started for it and is asked to end by SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for the program that started us, and ends us all
    signal.alarm(setting.life_limit_s)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    log = os.open(setting.log_of(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    part(name, setting)


def asked_to_end() -> threading.Event:
    """An event that SIGTERM sets, from now on."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    return stop


def report(what: object) -> None:
    """Write into the log of this process, for a person who seeks the cause of a violation."""
    text = str(what) if isinstance(what, str | rj.Notice) else f"{type(what).__name__}: {what}"
    os.write(sys.stderr.fileno(), f"{time.monotonic():.3f} {os.getpid()} {text}\n".encode())
