"""The figures that are measured, of what, and how much of each is allowed."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import psutil
from msgspec import Struct

from scripts.soaking.trend import Limit

MB_PER_KB: Final = 1_024 / 1_000_000
SERVER_FILES_KEPT: Final = 64
"""The smallest limit of open files that a server accepts."""


class Figure(StrEnum):
    """A figure of a process, of the server as a whole, or of a table."""

    MEMORY = "memory, MB"
    FILES = "open files"
    SERVER_FILES = "open files of the server's"
    THREADS = "threads"
    CHILDREN = "children"
    CONNECTIONS = "connections"
    ADVISORY_LOCKS = "advisory locks"
    OLDEST_TRANSACTION = "oldest transaction, s"
    TEMPORARY_FILES = "temporary files"
    BYTES_PER_ROW = "bytes per row"
    INDEX_BYTES_PER_ROW = "index bytes per row"
    DEAD_ROWS = "dead rows"


LIMITS: Final = {
    # An allocator takes memory from the system by the megabyte, and gives it back when it can.
    Figure.MEMORY: Limit(floor=2.0, share=0.03, per_hour=6.0),
    # Threads that come and go have some of each; of many, as of a server's connections, chance
    # makes more and fewer.
    Figure.FILES: Limit(floor=6, per_hour=6),
    # A server's process keeps the files of tables open, up to its limit.
    Figure.SERVER_FILES: Limit(floor=SERVER_FILES_KEPT, per_hour=6),
    Figure.THREADS: Limit(floor=5, per_hour=6),
    Figure.CHILDREN: Limit(floor=3, share=0.3, per_hour=6),
    Figure.CONNECTIONS: Limit(floor=5, share=0.3, per_hour=6),
    Figure.ADVISORY_LOCKS: Limit(floor=3, per_hour=6),
    Figure.OLDEST_TRANSACTION: Limit(floor=5, per_hour=5),
    Figure.TEMPORARY_FILES: Limit(floor=2, per_hour=6),
    # Rows die all the time, and vacuum comes once in a minute.
    Figure.BYTES_PER_ROW: Limit(floor=200, share=0.2, per_hour=100),
    Figure.INDEX_BYTES_PER_ROW: Limit(floor=200, share=0.2, per_hour=100),
    Figure.DEAD_ROWS: Limit(floor=5_000, share=0.5, per_hour=5_000),
}
"""How much of each may come together."""


class Observation(Struct, frozen=True, kw_only=True):
    """A process at one moment: `life` distinguishes it from later ones, `role` is what it has in
    common with those that come after it."""

    role: str
    name: str
    life: str
    figures: Mapping[Figure, float]

    @classmethod
    def of(cls, name: str, figures: Mapping[Figure, float]) -> Self:
        """Of what is there only once, under one name."""
        return cls(role=name, name=name, life=name, figures=figures)


class Sample(Struct, frozen=True, kw_only=True):
    """All processes at one moment; `at_s` counts from the beginning of the soak."""

    at_s: float
    observations: tuple[Observation, ...]


class Processes:
    """Every process of the machine at one moment. A process that has ended has no figures."""

    def __init__(self) -> None:
        self._by_id = {it.pid: it for it in psutil.process_iter(["ppid", "status"])}

    def one(self, pid: int) -> psutil.Process | None:
        """The process of that number, unless it has ended."""
        process = self._by_id.get(pid)
        has_ended = process is None or process.info["status"] == psutil.STATUS_ZOMBIE
        return None if has_ended else process

    def parent(self, process: psutil.Process) -> psutil.Process | None:
        """The process that started this one."""
        return self.one(process.info["ppid"])

    def children(self, pid: int) -> list[psutil.Process]:
        """Those that it has started, also those that have ended and that it has not buried."""
        return [it for it in self._by_id.values() if it.info["ppid"] == pid]

    def descendants(self, pid: int) -> Iterator[psutil.Process]:
        """Its living children, theirs, and so on."""
        for child in self.children(pid):
            yield child
            yield from self.descendants(child.pid)

    def observation(
        self, pid: int, role: str, name: str, *, is_of_server: bool = False
    ) -> Observation | None:
        """The process of that number, unless it has ended."""
        process = self.one(pid)
        if process is None:
            return None
        try:
            figures = {
                Figure.MEMORY: _memory_mb(pid, is_of_server=is_of_server),
                Figure.SERVER_FILES if is_of_server else Figure.FILES: process.num_fds(),
                Figure.THREADS: process.num_threads(),
                Figure.CHILDREN: len(self.children(pid)),
            }
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError, KeyError):
            return None
        life = f"{pid}:{process.create_time()}"
        return Observation(role=role, name=name, life=life, figures=figures)


def _memory_mb(pid: int, *, is_of_server: bool) -> float:
    """Memory that was written to, be it shared with a parent or a child since a fork: no pages of
    libraries, which the kernel takes and gives back as it likes. Shared memory counts too, but for
    the server's: that is its buffers, and each process of it is said to have those that it has
    ever touched. Raises `KeyError` where the process has ended and is not buried yet.
    """
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    kilobytes = dict(re.findall(r"^(RssAnon|RssShmem):\s+(\d+)", text, re.MULTILINE))
    memory_kb = int(kilobytes["RssAnon"])
    return MB_PER_KB * (memory_kb if is_of_server else memory_kb + int(kilobytes["RssShmem"]))
