"""Every process of the machine at one moment, as the kernel's own files show it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from scripts.soaking.figure import Figure

PROC: Final = Path("/proc")
MB_PER_KB: Final = 1_024 / 1_000_000
ZOMBIE: Final = "Z"


class Process(Struct, frozen=True, kw_only=True):
    """One process; its number is used again, its life is not."""

    pid: int
    parent_id: int
    state: str
    started: str

    @property
    def life(self) -> str:
        """An id that no other process has."""
        return f"{self.pid}:{self.started}"

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """That of a number; None where there is none any more."""
        try:
            text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The program's name stands in brackets, and may itself hold brackets and blanks.
        fields = text[text.rindex(")") + 2 :].split()
        return cls(pid=pid, state=fields[0], parent_id=int(fields[1]), started=fields[19])


class Processes:
    """All of one moment."""

    def __init__(self) -> None:
        found = (Process.read(int(it.name)) for it in PROC.iterdir() if it.name.isdecimal())
        self._by_id = {it.pid: it for it in found if it is not None}

    def one(self, pid: int) -> Process | None:
        """The process of that number, unless it has ended."""
        process = self._by_id.get(pid)
        return None if process is None or process.state == ZOMBIE else process

    def children(self, pid: int) -> list[Process]:
        """Those that it has started, also those that have ended and that it has not buried."""
        return [it for it in self._by_id.values() if it.parent_id == pid]

    def descendants(self, pid: int) -> Iterator[Process]:
        """Its living children, theirs, and so on."""
        for child in self.children(pid):
            yield child
            yield from self.descendants(child.pid)

    def figures(self, process: Process, *, is_of_server: bool = False) -> dict[Figure, float]:
        """Of one process; none where it has just ended.

        Memory is what was written to, be it shared with a parent or a child since a fork: no pages
        of libraries, which the kernel takes and gives back as it likes. Shared memory counts too,
        but for the server's: that is its buffers, and each process of it is said to have those that
        it has ever touched.
        """
        folder = PROC / str(process.pid)
        try:
            status = dict(
                line.split(":", 1)
                for line in (folder / "status").read_text(encoding="utf-8").splitlines()
                if ":" in line
            )
            file_count = sum(1 for _ in (folder / "fd").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return {}
        if "RssAnon" not in status:  # it has ended and is not buried yet
            return {}
        memory_kb = _number(status["RssAnon"])
        if not is_of_server:
            memory_kb += _number(status["RssShmem"])
        return {
            Figure.MEMORY: memory_kb * MB_PER_KB,
            Figure.SERVER_FILES if is_of_server else Figure.FILES: file_count,
            Figure.THREADS: _number(status["Threads"]),
            Figure.CHILDREN: len(self.children(process.pid)),
        }


def _number(text: str) -> int:
    return int(text.split(maxsplit=1)[0])
