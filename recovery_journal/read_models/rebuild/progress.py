"""The progress and the report of a rebuild or a check."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct


class Phase(StrEnum):
    """The present phase of a rebuild or a check."""

    FOLDING = "folding"
    INDEXING = "indexing"
    CATCHING_UP = "catching up"
    SWITCHING = "switching"
    INDEXING_AS_OF = "indexing for as-of"
    DONE = "done"
    CHECKING = "checking"


class RebuildProgress(Struct, frozen=True, kw_only=True):
    """The progress of a rebuild or a check. `event_count` counts the log once: where it is read
    twice, for rows of single streams and for rows that mix them, it is half of what has been read.
    `total` is estimated from the positions: with gaps between them, the count ends a little below
    it. `done_before` of the events were folded by an earlier start of this rebuild, which was
    killed or failed."""

    phase: Phase
    event_count: int
    total: int
    projection: str | None = None
    done_before: int = 0
    process_count: int = 1


class RebuiltProjection(Struct, frozen=True, kw_only=True):
    """The result for one projection: its rows, up to which position, and for how long the switch
    may have made other sessions wait."""

    projection: str
    position: int
    row_count: int
    switch_s: float


class RebuildReport(Struct, frozen=True, kw_only=True):
    """The result of a rebuild, from a log of so many events. `done_before` counts the events that
    an earlier start of it had folded, as its progress counts. `as_of_s` is how long it took, in
    seconds, after everything was switched, to index lists for as-of reads."""

    event_count: int
    done_before: int
    projections: tuple[RebuiltProjection, ...]
    seconds: float
    as_of_s: float
    process_count: int


ProgressObserver: TypeAlias = Callable[[RebuildProgress], object]
