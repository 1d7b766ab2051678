"""The parts that the processes of a storm play, each until SIGTERM."""

import ctypes
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar
from uuid import uuid4

from msgspec import Struct

import recovery_journal as rj
from scripts.storming.history import History
from scripts.storming.job import FOLDED, KINDS, Run, folded, work
from scripts.storming.watched import WatchedJournal

AnswerT = TypeVar("AnswerT")

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
LIFE_LIMIT_S: Final = 3_600  # whoever started it ends it; this is for the case that nobody is left
PAUSE_S: Final = 0.1
OPEN_LIMIT: Final = 12  # attempts that are not finished yet
LOOKS: Final = 3
REBUILD_PAUSE_S: Final = 1.0
REBUILT: Final = "rebuilt"

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

OPEN: Final = "SELECT count(*) AS count FROM leases WHERE ended_at IS NULL"


class Role(StrEnum):
    """What a process does."""

    WORKER = "worker"
    SWEEPER = "sweeper"
    FOLLOWER = "follower"
    STARTER = "starter"
    REBUILDER = "rebuilder"


class Setting(Struct, frozen=True, kw_only=True):
    """Where the journal is, and where the processes leave what they have to tell."""

    dsn: str
    folder: Path
    schema: str = "storm"

    @property
    def histories(self) -> Path:
        """What each process believes to have done."""
        return self.folder / "history"


def live(role: Role, name: str, setting: Setting) -> None:
    """Play a part in this process, which was forked for it and is told to end by SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for the storm, which ends us all
    signal.alarm(LIFE_LIMIT_S)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    said = os.open(setting.folder / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    PARTS[role](name, setting)


def _worker(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        rj.Worker(journal, name, dict.fromkeys(KINDS, work), on_event=_tell).run()


def _sweeper(_name: str, setting: Setting) -> None:
    with _opened(setting) as journal:
        rj.Sweeper(journal, on_problem=_tell).run()


def _follower(_name: str, setting: Setting) -> None:
    with _opened(setting) as journal:
        rj.Follower(journal, on_problem=_tell).run()


def _rebuilder(_name: str, setting: Setting) -> None:
    """Check everything and rebuild it, again and again. A server that is away is no end of it;
    rows that are wrong are, before the rebuild would hide that."""
    stop = _asked_to_end()
    with _opened(setting) as journal:
        while not stop.is_set():
            try:
                _require_right(journal)
                report = journal.rebuild(process_count=2)
                _tell(f"{REBUILT} from {report.event_count} events")
            except rj.Retry as problem:
                _tell(problem)
            stop.wait(REBUILD_PAUSE_S)


def _require_right(journal: rj.Journal) -> None:
    for one in journal.check():
        if not one.is_right:
            raise SystemExit(f"{one.projection} is wrong: {one.differences}")


def _starter(name: str, setting: Setting) -> None:
    """Open attempts for the workers, as many as they need, and look what became of older ones."""
    stop = _asked_to_end()
    begun: list[str] = []
    with _watched(name, setting) as journal:
        for number in itertools.count(1):
            while (_asked(lambda: _open_count(journal), stop) or 0) >= OPEN_LIMIT:
                for attempt_id in random.sample(begun, min(LOOKS, len(begun))):
                    _asked(lambda: journal.look(attempt_id), stop)  # noqa: B023 - called at once
                stop.wait(PAUSE_S)
            if stop.is_set():
                return
            attempt_id = f"{name}-{os.getpid()}-{number}"
            if _begin(journal, attempt_id, number, stop):
                begun.append(attempt_id)


def _begin(journal: WatchedJournal, attempt_id: str, number: int, stop: threading.Event) -> bool:
    """Acquire an attempt, asking until there is an answer, and hand it to the workers."""
    event_id = uuid4().hex

    def acquire() -> rj.Lease:
        return journal.acquire(
            attempt_id=attempt_id,
            run_id=f"run of {attempt_id}",
            worker_id=attempt_id,
            kind=KINDS[number % len(KINDS)],
            input=Run.of(attempt_id).input,
            event_id=event_id,
        )

    try:
        lease = _asked(acquire, stop)
        if lease is None:
            return False
        _asked(lambda: lease.hand_back("for the workers"), stop)
    except (rj.AttemptExists, rj.LeaseLost) as problem:
        # What had no answer was done, and has been lost meanwhile: the sweeper has it.
        _tell(problem)
    return True


def _asked(call: Callable[[], AnswerT], stop: threading.Event) -> AnswerT | None:
    """The answer, asked for until there is one; None once this process is to end."""
    while not stop.is_set():
        try:
            return call()
        except rj.Retry as problem:
            _tell(problem)
        stop.wait(PAUSE_S)
    return None


def _open_count(journal: rj.Journal) -> int:
    with journal.database.cursor() as cursor:
        row = cursor.execute(OPEN).fetchone()
    assert row is not None
    return int(row["count"])


def _watched(name: str, setting: Setting) -> WatchedJournal:
    return WatchedJournal(
        setting.dsn,
        setting.schema,
        History(setting.histories, name),
        limits=LIMITS,
        reducers={FOLDED: folded},
    )


def _opened(setting: Setting) -> rj.Journal:
    """The journal, as soon as the server is there."""
    while True:
        try:
            return rj.open(
                setting.dsn,
                schema=setting.schema,
                limits=LIMITS,
                reducers={FOLDED: folded},
                must_exist=True,
            )
        except rj.Retry as problem:
            _tell(problem)
        time.sleep(PAUSE_S)


def _asked_to_end() -> threading.Event:
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    return stop


def _tell(what: object) -> None:
    """Into the log of this process, for whoever looks for the cause of a violation."""
    text = str(what) if isinstance(what, str | rj.Notice) else f"{type(what).__name__}: {what}"
    os.write(sys.stderr.fileno(), f"{time.monotonic():.3f} {os.getpid()} {text}\n".encode())


PARTS: Final[Mapping[Role, Callable[[str, Setting], None]]] = {
    Role.WORKER: _worker,
    Role.SWEEPER: _sweeper,
    Role.FOLLOWER: _follower,
    Role.STARTER: _starter,
    Role.REBUILDER: _rebuilder,
}
