"""A function in a process of its own, as a user would start it; its memory seen from outside."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from typing import Any, Final, NamedTuple

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
