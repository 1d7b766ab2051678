"""Merely reading and decoding the log once, to do nothing with its records."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from recovery_journal.log.block import LogBlocks
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record
from recovery_journal.read_models.rebuild.processes import Count, side_by_side

RANGES_PER_PROCESS: Final = 16
"""As many as in a rebuild, so that none of the processes is idle for long at the end."""

Read: TypeAlias = Callable[[LogBlocks, int, int, int], Iterator[list[Record]]]
"""Is given (after, last, upto): a range of positions, and the end of the log."""


def read_streams(dsn: str, schema: str, event_count: int, process_count: int) -> float:
    """How many seconds it takes with a rebuild's own reader and processes, stream by stream: no
    rebuild that uses them can be faster."""
    return _timed(dsn, schema, event_count, process_count, read=_streams)


def read_positions(dsn: str, schema: str, event_count: int, process_count: int) -> float:
    """Likewise in the log's own order, in which it lies on disk: which folds of streams cannot
    use, and the least that reading can cost."""
    return _timed(dsn, schema, event_count, process_count, read=_positions)


def _streams(blocks: LogBlocks, after: int, last: int, upto: int) -> Iterator[list[Record]]:
    return blocks.begun(after=after, last=last, upto=upto)


def _positions(blocks: LogBlocks, after: int, last: int, _upto: int) -> Iterator[list[Record]]:
    return blocks.by_position(after=after, upto=last)


def _timed(dsn: str, schema: str, event_count: int, process_count: int, *, read: Read) -> float:
    database = Database(dsn, schema, statement_s=0)
    reading = _Reading(database, read, event_count, process_count)
    begun = time.perf_counter()
    side_by_side(reading.work, process_count, reading.note)
    seconds = time.perf_counter() - begun
    database.close()
    assert reading.read_count == event_count, f"read {reading.read_count} of {event_count} events"
    return seconds


class _Reading:
    """The ranges of positions that processes take in turn, and how much they have read."""

    def __init__(
        self, database: Database, read: Read, event_count: int, process_count: int
    ) -> None:
        self._database = database
        self._read = read
        self._event_count = event_count
        self._range_events = event_count // (process_count * RANGES_PER_PROCESS) + 1
        self._taken = multiprocessing.get_context("fork").Value("q", 0)
        self.read_count = 0

    def work(self, _no: int, count: Count) -> None:
        """Read ranges until none is left."""
        while (after := self._next()) < self._event_count:
            last = min(after + self._range_events, self._event_count)
            with self._database.transaction():
                blocks = LogBlocks(self._database)
                for block in self._read(blocks, after, last, self._event_count):
                    count(len(block))

    def note(self, read_count: int) -> None:
        """Keep how many events all have read."""
        self.read_count = read_count

    def _next(self) -> int:
        with self._taken.get_lock():
            after: int = self._taken.value
            self._taken.value += self._range_events
        return after
