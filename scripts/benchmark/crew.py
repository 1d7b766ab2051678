"""Worker and sweeper processes for a measurement, each forked from a bench that has no threads."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import recovery_journal as rj

LIMIT_S: Final = 60.0
PAUSE_S: Final = 0.002

SESSION_LOCKS: Final = """
SELECT count(*) AS count
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass AND granted
"""

_forking = multiprocessing.get_context("fork")


class Crew:
    """Processes at one journal, and the file where their functions say that they were called."""

    def __init__(self, dsn: str, schema: str, folder: Path, limits: rj.Limits) -> None:
        self._dsn = dsn
        self._schema = schema
        self._limits = limits
        self._said = folder / f"{schema}.lines"
        self._said.touch()
        self._processes: dict[int, ForkProcess] = {}
        self.journal = rj.open(dsn, schema=schema, limits=limits)

    def start_sweeper(self) -> int:
        """A sweeper's process."""
        return self._start(lambda journal: rj.Sweeper(journal).run())

    def start_worker(self, worker_id: str, **settings: Any) -> int:
        """A worker's process. Its function ends in its second recovery, and holds in the first."""
        return self._start(
            lambda journal: rj.Worker(journal, worker_id, self._say, **settings).run()
        )

    def make_ready(self, attempt_id: str) -> None:
        """An attempt on the dispatch-ready list."""
        run_id = f"run of {attempt_id}"
        self.journal.acquire(attempt_id=attempt_id, run_id=run_id, worker_id="bench").hand_back()

    def await_workers(self, count: int) -> None:
        """Until so many workers hold their session locks."""
        until(lambda: self._lock_count() == count, f"{count} session locks")

    def await_call(self, attempt_id: str, count: int) -> tuple[int, float]:
        """The worker's process and the time of the `count`-th call of an attempt's function."""
        until(lambda: len(self._calls(attempt_id)) >= count, f"call {count} of {attempt_id}")
        return self._calls(attempt_id)[count - 1]

    def kill(self, pid: int) -> float:
        """SIGKILL a process; when."""
        killed_at = time.time()
        os.kill(pid, signal.SIGKILL)
        self._processes.pop(pid).join()
        return killed_at

    def close(self) -> None:
        """End all that is left."""
        for process in self._processes.values():
            process.kill()
            process.join()
        with self.journal.database.cursor() as cursor:
            cursor.execute("SET client_min_messages = warning")
            cursor.execute(f'DROP SCHEMA "{self._schema}" CASCADE'.encode())
        self.journal.close()

    def _start(self, run: Callable[[rj.Journal], object]) -> int:
        def live() -> None:
            with rj.open(self._dsn, schema=self._schema, limits=self._limits) as journal:
                run(journal)

        process = _forking.Process(target=live)
        process.start()
        assert process.pid is not None
        self._processes[process.pid] = process
        return process.pid

    def _say(self, claim: rj.Claim) -> None:
        """The function that workers run: it says when it was called, and by whom."""
        called = (claim.lease.attempt_id, os.getppid(), time.time())
        file = os.open(self._said, os.O_WRONLY | os.O_APPEND)
        os.write(file, json.dumps(called).encode() + b"\n")
        os.close(file)
        is_first = claim.context is not None and claim.context.recovery_no == 1
        while is_first and claim.lease.attempt_id.startswith("held "):
            time.sleep(PAUSE_S)

    def _calls(self, attempt_id: str) -> list[tuple[int, float]]:
        lines = self._said.read_bytes().splitlines()
        called = [json.loads(line) for line in lines]
        return [(pid, at) for name, pid, at in called if name == attempt_id]

    def _lock_count(self) -> int:
        with self.journal.database.cursor() as cursor:
            row = cursor.execute(SESSION_LOCKS).fetchone()
        assert row is not None
        return int(row["count"])


@contextmanager
def crew_at(dsn: str, folder: Path, limits: rj.Limits | None = None) -> Iterator[Crew]:
    """A crew at a fresh journal, whose schema is dropped afterwards."""
    crew = Crew(dsn, f"benchmark_{uuid4().hex[:12]}", folder, limits or rj.Limits())
    try:
        yield crew
    finally:
        crew.close()


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {LIMIT_S:g} s for {what}")
        time.sleep(PAUSE_S)
