"""A function in a process of its own, as a user would start it; its memory seen from outside."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import psutil

SAMPLE_S: Final = 0.05
BYTES_PER_MB: Final = 1_000_000


class Watched(NamedTuple):
    """What the function returned, and the most memory that its process and all of its children
    had together. Pages that they share are counted once, where the system can tell."""

    answer: Any
    peak_mb: float


def run_apart(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
    """What the function returns, called in a fresh process."""
    return _run(function, arguments, look=lambda _pid: 0).answer


def run_watched(function: Callable[..., Any], *arguments: object) -> Watched:
    """As `run_apart`, looking at the memory all the time: for a run whose time does not count."""
    return _run(function, arguments, look=_memory)


def _run(
    function: Callable[..., Any], arguments: tuple[object, ...], *, look: Callable[[int], int]
) -> Watched:
    spawn = multiprocessing.get_context("spawn")
    answers, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    assert process.pid is not None
    peak = 0
    while not answers.poll(SAMPLE_S):
        peak = max(peak, look(process.pid))
    try:
        answer = answers.recv()
    except EOFError:
        raise RuntimeError("a measured process died; its own words are above") from None
    finally:
        process.join()
        answers.close()
    return Watched(answer, round(peak / BYTES_PER_MB, 1))


def _answer(
    answers: "Connection[Any, Any]", function: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    answers.send(function(*arguments))


def _memory(pid: int) -> int:
    """Bytes of the process and its children, of those that still live."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(memory, "pss", memory.rss)
    return total
