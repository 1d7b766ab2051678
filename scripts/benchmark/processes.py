"""Functions in processes of their own: one alone, or many at once; the time and memory they use."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import psutil

from scripts.benchmark.measuring import BYTES_PER_MB

SAMPLE_S: Final = 0.05
PATIENCE_S: Final = 600


Living: TypeAlias = Callable[[], Iterable[psutil.Process]]
"""Finds the processes that are measured, as far as they live."""


class Watched(NamedTuple):
    """The function's result, and the most memory that its process and all of its children had
    together."""

    answer: Any
    peak_mb: float


def run_apart(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
    """The function's result, or its exception, called in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_watched(function: Callable[..., Any], *arguments: object) -> Watched:
    """As `run_apart`, sampling the memory all the time: for a run whose time does not count."""
    peak_mb = 0.0
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(function, *arguments)
        while not future.done():
            peak_mb = max(peak_mb, memory_mb(psutil.Process().children(recursive=True)))
            wait([future], SAMPLE_S)
        return Watched(future.result(), round(peak_mb, 1))


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Memory of those that live; pages that they share are counted once, where the system shows
    it."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total / BYTES_PER_MB


def processor_s(processes: Iterable[psutil.Process]) -> float:
    """Processor time of those that live."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def core_share(living: Living, seconds: float) -> float:
    """The share of one core that these processes use, over so many seconds."""
    begun, before_s = time.monotonic(), processor_s(living())
    time.sleep(seconds)
    return (processor_s(living()) - before_s) / (time.monotonic() - begun)


class Signals(NamedTuple):
    """A job calls `begin` once it has prepared; that returns once all have. It may work until
    `is_over`, or until it has done all there is."""

    begin: Callable[[], object]
    is_over: Event


Job: TypeAlias = Callable[[Signals], object]
"""Prepares, begins and works; returns its result."""


class Crowd:
    """A process for each job, which begin to work at the same moment. Jobs that are spawned must
    be picklable; the others are forked."""

    def __init__(self, jobs: Sequence[Job], method: Literal["spawn", "fork"] = "spawn") -> None:
        context = multiprocessing.get_context(method)
        self._start, self._results = context.Barrier(len(jobs) + 1), context.Queue()
        self._is_over = context.Event()
        signals = Signals(partial(self._start.wait, PATIENCE_S), self._is_over)
        processes: Any = context  # whose class of processes mypy does not know
        self._processes: list[BaseProcess] = [
            processes.Process(target=_work, args=(job, signals, self._results)) for job in jobs
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

    def end(self) -> list[Any]:
        """Let all of them end; the result of each."""
        self._is_over.set()
        return self.results()


def _work(job: Job, signals: Signals, results: "Queue[Any]") -> None:
    results.put(job(signals))
