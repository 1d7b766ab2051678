"""Worker and sweeper processes for a measurement, each forked from a bench that has no threads."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psutil

import recovery_journal as rj
from scripts.benchmark.measuring import drop_schema, one_row, wait_until
from scripts.harness.fleet import Fleet, Member
from scripts.harness.life import Role, Setting

PAUSE_S: Final = 0.002

SESSION_LOCKS: Final = """
SELECT count(*) AS count
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass AND granted
"""


class Crew:
    """Processes at one journal, and the file where the calls of their functions are noted."""

    def __init__(self, setting: Setting, fleet: Fleet, limits: rj.Limits) -> None:
        self._fleet = fleet
        self._limits = limits
        self._calls_file = setting.folder / f"{setting.schema}.lines"
        self._calls_file.touch()
        self.journal = rj.open(setting.dsn, schema=setting.schema, limits=limits)

    def start_sweeper(self) -> Member:
        """Start the process of a sweeper."""
        return self._start(Role.SWEEPER, "sweeper", lambda journal: rj.Sweeper(journal).run())

    def start_worker(self, worker_id: str, **settings: Any) -> Member:
        """Start the process of a worker. Its function ends in its second recovery, and waits in the
        first."""
        return self._start(
            Role.WORKER,
            worker_id,
            lambda journal: rj.Worker(journal, worker_id, self._note, **settings).run(),
        )

    def make_ready(self, attempt_id: str) -> None:
        """Put an attempt on the dispatch-ready list."""
        run_id = f"run of {attempt_id}"
        self.journal.acquire(attempt_id=attempt_id, run_id=run_id, worker_id="bench").hand_back()

    def await_workers(self, count: int) -> None:
        """Return once so many workers hold their session locks."""
        wait_until(
            lambda: bool(one_row(self.journal.database, SESSION_LOCKS)["count"] == count),
            f"{count} session locks",
        )

    def await_call(self, attempt_id: str, count: int) -> tuple[int, float]:
        """The worker's process and the time of the `count`-th call of an attempt's function."""
        wait_until(lambda: len(self._calls(attempt_id)) >= count, f"call {count} of {attempt_id}")
        return self._calls(attempt_id)[count - 1]

    def kill(self, pid: int) -> float:
        """SIGKILL a process; when."""
        [member] = [it for it in self._fleet.members if it.pid == pid]
        killed_at = time.time()
        member.kill()
        return killed_at

    def _start(self, role: Role, name: str, run: Callable[[rj.Journal], object]) -> Member:
        def part(_name: str, setting: Setting) -> None:
            with rj.open(setting.dsn, schema=setting.schema, limits=self._limits) as journal:
                run(journal)

        return self._fleet.start(role, name, part)

    def _note(self, claim: rj.Claim) -> None:
        """The function that workers run: it notes when and by which process it was called."""
        called_at = time.time()
        worker_id = psutil.Process(os.getppid()).ppid()  # behind the guardian
        called = (claim.lease.attempt_id, worker_id, called_at)
        with self._calls_file.open("ab", buffering=0) as file:
            file.write(json.dumps(called).encode() + b"\n")
        is_first = claim.context is not None and claim.context.recovery_no == 1
        while is_first and claim.lease.attempt_id.startswith("held "):
            time.sleep(PAUSE_S)

    def _calls(self, attempt_id: str) -> list[tuple[int, float]]:
        called = map(json.loads, self._calls_file.read_bytes().splitlines())
        return [(pid, at) for name, pid, at in called if name == attempt_id]


@contextmanager
def crew_at(dsn: str, limits: rj.Limits | None = None) -> Iterator[Crew]:
    """A crew at a fresh journal, whose schema and folder are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rj-bench-") as folder:
        schema = f"benchmark_{uuid4().hex[:12]}"
        setting = Setting(dsn=dsn, folder=Path(folder), schema=schema)
        fleet = Fleet(setting)
        crew = Crew(setting, fleet, limits or rj.Limits())
        try:
            with fleet:
                yield crew
        finally:
            drop_schema(crew.journal.database)
            crew.journal.close()
