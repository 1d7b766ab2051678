"""The tests' own view: attempts made ready, worker programs started, and what they did."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.domain.events import RecoveryEvent
from recovery_journal.journal import Journal
from recovery_journal.worker.outcome import Notice, NoticeKind, Outcome
from recovery_journal.worker.worker import SHORTEST_PAUSE_S, Worker
from tests.servers import server_started_at
from tests.worker.functions import FUNCTIONS, is_gone, until
from tests.worker.program import Settings

ROOT = Path(__file__).resolve().parents[2]
EventT = TypeVar("EventT", bound=RecoveryEvent)

PROGRAM = "tests.worker.program"
TTL_S = 1.0


@dataclass
class WorkerProgram:
    """A worker in a process of its own, and the notices it writes."""

    process: subprocess.Popen[bytes]
    settings: Settings

    @property
    def notices(self) -> list[Notice]:
        path = Path(self.settings.notices)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [msgspec.json.decode(line, type=Notice) for line in lines if line.endswith(b"\n")]

    @property
    def outcomes(self) -> list[Outcome | None]:
        return [notice.outcome for notice in self.notices if notice.kind is NoticeKind.ENDED]

    @property
    def is_draining(self) -> bool:
        return any(notice.kind is NoticeKind.DRAINING for notice in self.notices)

    def signal_all(self, number: signal.Signals) -> None:
        """As a service manager does: to the worker, its child and what that has started."""
        worker = psutil.Process(self.process.pid)
        for one in (worker, *worker.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                one.send_signal(number)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def until_ended(self, count: int = 1) -> list[Outcome | None]:
        until(lambda: len(self.outcomes) >= count, f"{count} ended attempts: {self.notices}")
        return self.outcomes

    def exit_code(self) -> int:
        return self.process.wait(60)


@dataclass
class Desk:
    """One journal's tests: a folder for files, worker programs, attempts."""

    journal: Journal
    dsn: str
    folder: Path
    programs: list[WorkerProgram] = field(default_factory=list)

    def make_ready(self, attempt_id: str, kind: str) -> None:
        """An attempt on the dispatch-ready list; its input is the test's folder."""
        lease = self.journal.acquire(
            attempt_id=attempt_id,
            run_id=f"run of {attempt_id}",
            worker_id="w-0",
            kind=kind,
            input=str(self.folder),
        )
        lease.hand_back()

    def start(
        self,
        worker_id: str = "w-1",
        *,
        ttl_s: float = TTL_S,
        max_attempts: int | None = None,
        stalled_after_s: float | None = None,
        drain_s: float = 10.0,
        dsn: str | None = None,
        shortest_pause_s: float | None = None,
        longest_pause_s: float | None = None,
        within: Sequence[str] = (),
        **process: Any,
    ) -> WorkerProgram:
        """A worker program, run by the command `within`; `process` are arguments of its `Popen`."""
        settings = Settings(
            dsn=dsn or self.dsn,
            schema=self.journal.database.schema,
            worker_id=worker_id,
            notices=str(self.folder / f"{worker_id}.notices"),
            ttl_s=ttl_s,
            max_attempts=max_attempts,
            stalled_after_s=stalled_after_s,
            drain_s=drain_s,
            shortest_pause_s=shortest_pause_s or SHORTEST_PAUSE_S,
            longest_pause_s=longest_pause_s,
        )
        command = [
            *within,
            sys.executable,
            "-m",
            PROGRAM,
            msgspec.json.encode(settings).decode(),
        ]
        program = WorkerProgram(subprocess.Popen(command, cwd=ROOT, **process), settings)
        self.programs.append(program)
        return program

    def child_id(self) -> int:
        """The process that runs the function, once it does."""
        until((self.folder / "started").exists, "the function to start")
        return int((self.folder / "started").read_text())

    def forget_start(self) -> None:
        (self.folder / "started").unlink()

    def let_go(self) -> None:
        """Let the function end."""
        (self.folder / "go").touch()

    def events(self, attempt_id: str, of: type[EventT]) -> list[EventT]:
        """The events of one type in an attempt's stream."""
        found = [entry.event for entry in self.journal.history(attempt_id)]
        return [event for event in found if isinstance(event, of)]

    def sweep_until_lost(self, attempt_id: str) -> None:
        """Sweep until the attempt's lease has been lost, recovered and made ready."""
        until(
            lambda: attempt_id in {swept.attempt_id for swept in self.journal.sweep()},
            f"the loss of {attempt_id}",
        )

    def reconnect(self) -> None:
        """After an outage: this process's own connection was cut, which its next call finds."""
        with suppress(ServerUnavailable):
            server_started_at(self.journal.database)

    def close(self) -> None:
        """End the programs that this test started, and what they left."""
        for program in self.programs:
            with suppress(ProcessLookupError):
                os.kill(program.process.pid, signal.SIGKILL)
            program.process.wait()
        for name in ("started", "forked"):
            if (self.folder / name).exists():
                kill_for_good(int((self.folder / name).read_text()))


def kill_for_good(pid: int) -> None:
    """Kill what a worker program forked, and nothing that has its number by now."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if PROGRAM in process.cmdline():
            process.kill()
            until(lambda: is_gone(pid), f"process {pid} to die")


@contextmanager
def desk_at(journal: Journal, dsn: str) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="rj-worker-") as folder:
        desk = Desk(journal, dsn, Path(folder))
        try:
            yield desk
        finally:
            desk.close()


def ttl(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def worker_of(desk: Desk, functions: Any = FUNCTIONS, **settings: Any) -> Worker:
    settings = {"ttl": ttl(TTL_S), "on_event": lambda _notice: None, **settings}
    return Worker(desk.journal, "w-1", functions, **settings)
