"""Functions in processes of their own: one alone, its memory seen from outside, or many at once."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import psutil

SAMPLE_S: Final = 0.05
BYTES_PER_MB: Final = 1_000_000


class Watched(NamedTuple):
    """The function's result, and the most memory that its process and all of its children had
    together. Pages that they share are counted once, where the system shows it."""

    answer: Any
    peak_mb: float


def run_apart(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
    """The function's result, or its exception, called in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_watched(function: Callable[..., Any], *arguments: object) -> Watched:
    """As `run_apart`, sampling the memory all the time: for a run whose time does not count."""
    peak = 0
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(function, *arguments)
        while not future.done():
            peak = max(peak, _memory())
            wait([future], SAMPLE_S)
        return Watched(future.result(), round(peak / BYTES_PER_MB, 1))


def _memory() -> int:
    """Bytes of all descendants of this process."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total


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
