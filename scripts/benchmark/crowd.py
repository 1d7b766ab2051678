"""Processes that begin to work at the same moment, each with a result."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any, Final, Literal, Self, TypeAlias

PATIENCE_S: Final = 600

Begin: TypeAlias = Callable[[], object]
Job: TypeAlias = Callable[[Begin], object]
"""Prepares, calls what it is given, which returns once all have, and works; returns its result."""


class Crowd:
    """A process for each job. Jobs that are spawned must be picklable; the others are forked."""

    def __init__(self, jobs: Sequence[Job], method: Literal["spawn", "fork"] = "spawn") -> None:
        context = multiprocessing.get_context(method)
        self._start, self._results = context.Barrier(len(jobs) + 1), context.Queue()
        processes: Any = context  # whose class of processes mypy does not know
        self._processes: list[BaseProcess] = [
            processes.Process(target=_work, args=(job, self._start, self._results)) for job in jobs
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, failure: object, *_exception: object) -> None:
        for process in self._processes:
            if failure:
                process.kill()
            process.join()

    def begin(self) -> float:
        """Wait until all have prepared, and let them work; the time of that."""
        self._start.wait(PATIENCE_S)
        return time.monotonic()

    def results(self) -> list[Any]:
        """The result of each, in any order."""
        return [self._results.get(timeout=PATIENCE_S) for _ in self._processes]


def _work(job: Job, start: Barrier, results: "Queue[Any]") -> None:
    results.put(job(partial(start.wait, PATIENCE_S)))
