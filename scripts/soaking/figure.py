"""The figures that are measured, and how much of each is allowed."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from scripts.soaking.trend import Limit

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


class Sample(Struct, frozen=True, kw_only=True):
    """All processes at one moment; `at_s` counts from the beginning of the soak."""

    at_s: float
    observations: tuple[Observation, ...]
