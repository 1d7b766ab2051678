"""Folding whole streams, one after the other, without a table to look into."""

from collections.abc import Iterator
from typing import Generic

from projections.projection import Fold, Projection, Record, RowT


class StreamFold(Generic[RowT]):
    """Folds records in order of stream and version into final rows, in order of primary key.

    A stream may be spread over any number of blocks: only the newest row of the last stream is
    held back, so memory is bounded by the block.
    """

    def __init__(self, projection: Projection[RowT]) -> None:
        self._projection = projection
        self._held: RowT | None = None
        self._last_key: str | None = None

    def add(self, records: list[Record]) -> list[RowT]:
        """Fold one block; the rows that no later record can change. Raises `FoldFailed`."""
        if not records:
            return []
        fold = Fold(self._projection, self._newest())
        fold.add(records)
        rows = self._with_held(fold.changed())
        self._last_key = records[-1].event.originator_id
        self._held = None
        if rows and self._key(rows[-1]) == self._last_key:
            self._held = rows.pop()
        return rows

    def finish(self) -> list[RowT]:
        """The row that was held back for want of an end."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _newest(self) -> dict[str, RowT]:
        return {} if self._held is None else {self._key(self._held): self._held}

    def _with_held(self, changed: list[RowT]) -> list[RowT]:
        """The held row comes first, unless this block changed it."""
        primary_key = self._projection.primary_key
        if self._held is None:
            return changed
        if changed and primary_key(changed[0]) == primary_key(self._held):
            return changed
        return [self._held, *changed]

    def _key(self, row: RowT) -> str:
        key: str = getattr(row, self._projection.key_fields[0])
        return key


def folded(projection: Projection[RowT], blocks: Iterator[list[Record]]) -> Iterator[RowT]:
    """All rows that these blocks lead to."""
    fold = StreamFold(projection)
    for block in blocks:
        yield from fold.add(block)
    yield from fold.finish()
