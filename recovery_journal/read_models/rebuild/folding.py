"""The work of one process of a rebuild: it folds ranges of streams, or the log in its order, into
the shadow tables.

Rows and their entry in the registry are written in one transaction, so that a process may die at
any moment, and one that outlived its rebuild changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.log.block import LogBlocks
from recovery_journal.postgres.database import WITHOUT_LIMIT, Database
from recovery_journal.projections.projection import Projection, Record, RowT
from recovery_journal.projections.stream_fold import StreamFold
from recovery_journal.read_models.rebuild import registry
from recovery_journal.read_models.rebuild.registry import RebuildState
from recovery_journal.read_models.tables.projection_table import shadow_of
from recovery_journal.read_models.tables.row_errors import translating_write_errors

COPY_BYTES: Final = 2 * 1024 * 1024

# A server that crashes may lose the rows of a range together with the record that it is done, never
# one of the two. The switch, which is a later transaction, makes all of them durable.
WITHOUT_WAITING = "SET LOCAL synchronous_commit = off"

Count = Callable[[int], object]


class RangeFolding:
    """Folds for one rebuild, on the connection of the calling thread. `count` is called for every
    block that has been folded."""

    def __init__(
        self,
        database: Database,
        begun: RebuildState,
        projections: Sequence[Projection[Any]],
        *,
        block_events: int,
        count: Count,
    ) -> None:
        self._database = database
        self._begun = begun
        self._keyed = [it for it in projections if it.is_stream_keyed]
        self._mixed = [it for it in projections if not it.is_stream_keyed]
        self._block_events = block_events
        self._count = count

    def fold_ranges(self) -> None:
        """Fold one range after the other, until all are done or held by another process. Raises
        `FoldFailed`, `UnknownEvent`, `CorruptEvent`, `ServerUnavailable`."""
        while self._keyed and self._fold_range():
            pass

    def fold_positions(self) -> None:
        """Fold the log in its order, for rows that mix streams. Raises as `fold_ranges` does."""
        if not self._mixed:
            return
        shadows = [shadow_of(projection) for projection in self._mixed]
        after, upto = self._begun.position, self._begun.upto
        blocks = self._blocks().by_position(after=after, upto=upto)
        for block in blocks:
            with self._transaction() as cursor:
                if not self._is_at(cursor, after):
                    return
                for shadow in shadows:
                    shadow.apply(cursor, block)
                after = block[-1].position
                self._advance(cursor, after, event_count=len(block))
            self._count(len(block))
        with self._transaction() as cursor:
            if self._is_at(cursor, after):
                self._advance(cursor, upto, event_count=0)

    def _is_at(self, cursor: Cursor[DictRow], after: int) -> bool:
        """Whether no other process has folded meanwhile: another start of this rebuild would
        have."""
        name = self._mixed[0].name
        return registry.lock_position(cursor, self._begun.rebuild_no, name) == after

    def _advance(self, cursor: Cursor[DictRow], position: int, *, event_count: int) -> None:
        names = [projection.name for projection in self._mixed]
        rebuild_no = self._begun.rebuild_no
        registry.advance(cursor, rebuild_no, names, position=position, event_count=event_count)

    def _fold_range(self) -> bool:
        with self._transaction() as cursor:
            streams = registry.take_range(cursor, self._begun.rebuild_no)
            if streams is None:
                return False
            folds = [_Folded(projection) for projection in self._keyed]
            event_count = 0
            for block in self._blocks().begun(
                after=streams.after, last=streams.last, upto=self._begun.upto
            ):
                for fold in folds:
                    fold.add(cursor, block)
                event_count += len(block)
                self._count(len(block))
            for fold in folds:
                fold.finish(cursor)
            registry.finish_range(
                cursor, self._begun.rebuild_no, streams.no, event_count=event_count
            )
        return True

    def _blocks(self) -> LogBlocks:
        return LogBlocks(self._database, block_events=self._block_events)

    @contextmanager
    def _transaction(self) -> Iterator[Cursor[DictRow]]:
        with self._database.transaction() as cursor:
            cursor.execute(WITHOUT_LIMIT)
            cursor.execute(WITHOUT_WAITING)
            yield cursor


class _Folded(Generic[RowT]):
    """One projection's rows of one range, on their way into the shadow."""

    def __init__(self, projection: Projection[RowT]) -> None:
        self._fold = StreamFold(projection)
        self._shadow = shadow_of(projection)
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, cursor: Cursor[DictRow], block: list[Record]) -> None:
        self._put(self._fold.add(block))
        if self._size >= COPY_BYTES:
            self._copy(cursor)

    def finish(self, cursor: Cursor[DictRow]) -> None:
        self._put(self._fold.finish())
        self._copy(cursor)

    def _put(self, rows: Sequence[RowT]) -> None:
        with translating_write_errors(self._shadow.projection):
            piece = self._shadow.form.to_csv(rows)
        self._pieces.append(piece)
        self._size += len(piece)

    def _copy(self, cursor: Cursor[DictRow]) -> None:
        """One COPY for many blocks: each costs two round trips."""
        self._shadow.copy_csv(cursor, self._pieces)
        self._pieces, self._size = [], 0
