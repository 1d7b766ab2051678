"""Folds whole streams, one after the other, without reading a table."""

from collections.abc import Iterator
from typing import Generic

from recovery_journal.projections.projection import Fold, Projection, Record, RowT


class StreamFold(Generic[RowT]):
    """Folds records, stream after stream and each in order of version, into final rows. Where the
    streams come in the order of their names, the rows come in order of primary key.

    A stream may be spread over any number of blocks: only the newest row of the last stream is held
    back, so memory is bounded by the block.
    """

    def __init__(self, projection: Projection[RowT]) -> None:
        self._projection = projection
        self._held: RowT | None = None

    def add(self, records: list[Record]) -> list[RowT]:
        """Fold one block; return the rows that no later record can change. Raises `FoldFailed`."""
        if not records:
            return []
        held, self._held = self._held, None
        fold = Fold(self._projection, {} if held is None else {self._key(held): held})
        fold.add(records)
        rows = fold.changed()
        if held is not None and not fold.has_changed(held):
            rows = [held, *rows]
        self._held = fold.newest(records[-1].event.originator_id)
        return [row for row in rows if row is not self._held]

    def finish(self) -> list[RowT]:
        """The row that was held back, because its stream might have continued."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _key(self, row: RowT) -> str:
        key: str = getattr(row, self._projection.key_fields[0])
        return key


def folded(projection: Projection[RowT], blocks: Iterator[list[Record]]) -> Iterator[RowT]:
    """All rows that these blocks fold to."""
    fold = StreamFold(projection)
    for block in blocks:
        yield from fold.add(block)
    yield from fold.finish()
