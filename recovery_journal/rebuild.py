"""Rebuilding projections from the log, beside everything that goes on.

What is at or below a settled position never changes, so rows are folded from it into bare shadow
tables that nobody sees. Then these are indexed, catch up, and take the place of the old ones in
one short transaction (switch.py). Until then the old rows serve, also when a rebuild fails.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from domain.errors import ServerUnavailable, StoreBusy
from projections.catalog import BUILT_IN
from projections.projection import Projection
from projections.stream_fold import StreamFold
from recovery_journal.database import Database
from recovery_journal.log_block import BLOCK_EVENTS, LogBlocks
from recovery_journal.projection_table import ProjectionTable, table_of
from recovery_journal.reader import SettledReader
from recovery_journal.switch import Switch
from recovery_journal.tracking import ProjectionTracking

# The transactions that fill and index shadows may take longer than those of workers.
WITHOUT_LIMIT = "SET LOCAL statement_timeout = 0"

TRY_LOCK = "SELECT pg_try_advisory_lock(hashtext('recovery_journal rebuild'), hashtext(%(name)s)) AS is_ours"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('recovery_journal rebuild'), hashtext(%(name)s))"


class Phase(StrEnum):
    """What a rebuild is at."""

    FOLDING = "folding"
    INDEXING = "indexing"
    CATCHING_UP = "catching up"
    SWITCHING = "switching"
    DIGESTING = "digesting"
    DONE = "done"


class RebuildProgress(Struct, frozen=True, kw_only=True):
    """How far a rebuild is. `total` is the position up to which it folds: gaps in the positions
    make the count of events end a little below it."""

    phase: Phase
    event_count: int
    total: int
    projection: str | None = None


class RebuiltProjection(Struct, frozen=True, kw_only=True):
    """What became of one projection: its rows, a digest of them, and up to which position."""

    projection: str
    position: int
    row_count: int
    digest: str


class RebuildReport(Struct, frozen=True, kw_only=True):
    """What a rebuild did."""

    event_count: int
    projections: tuple[RebuiltProjection, ...]
    seconds: float


Observer = Callable[[RebuildProgress], object]


class Rebuild:
    """Rebuilds some projections; those whose rows derive from single streams in one reading of
    the log, the others in a second one."""

    def __init__(
        self,
        database: Database,
        reader: SettledReader,
        *,
        projections: Sequence[Projection[Any]] = BUILT_IN,
        block_events: int = BLOCK_EVENTS,
        on_progress: Observer = lambda _progress: None,
    ) -> None:
        self._database = database
        self._reader = reader
        self._projections = projections
        self._tracking = ProjectionTracking(database)
        self._block_events = block_events
        self._on_progress = on_progress
        self._event_count = 0
        self._upto = 0

    def run(self) -> RebuildReport:
        """Rebuild and switch. Raises `StoreBusy` where another rebuild is at work or the switch
        found no quiet moment, `FoldFailed`, `UnknownEvent`, `CorruptEvent`, `ServerUnavailable`;
        projections that were not switched by then keep their old rows."""
        started = time.monotonic()
        with self._alone():
            self._upto = self._settled_position()
            self._begin()
            self._fold_streams()
            self._fold_positions()
            positions = {it.name: self._finish(it) for it in self._projections}
            rebuilt = tuple(self._described(it, positions[it.name]) for it in self._projections)
        self._tell(Phase.DONE)
        return RebuildReport(
            event_count=self._event_count,
            projections=rebuilt,
            seconds=time.monotonic() - started,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One rebuild in a schema at a time; the lock is the session's, so it dies with it."""
        with self._database.cursor() as cursor:
            name = {"name": self._database.schema}
            row = cursor.execute(TRY_LOCK, name).fetchone()
            if row is None or not row["is_ours"]:
                raise StoreBusy("rebuild: another rebuild is at work", limit="0 s")
            self._session_no = self._database.session_no()
            try:
                yield
            finally:
                if self._database.session_no() == self._session_no:
                    cursor.execute(UNLOCK, name)

    def _settled_position(self) -> int:
        # A follower's position is settled by construction; a cold reader may know less.
        followed = [place.position for place in self._tracking.all()]
        return max([self._reader.settled_position(), *followed])

    def _begin(self) -> None:
        for projection in self._projections:
            shadow = ProjectionTable(projection, is_shadow=True)
            with self._database.transaction() as cursor:
                shadow.drop(cursor)
                if projection.is_stream_keyed:
                    shadow.create_bare(cursor)
                else:
                    shadow.create(cursor)

    def _fold_streams(self) -> None:
        """Fold stream after stream, and copy the rows that are final after every block."""
        keyed = [it for it in self._projections if it.is_stream_keyed]
        folds = [(StreamFold(it), ProjectionTable(it, is_shadow=True)) for it in keyed]
        if not folds:
            return
        for block in self._blocks().by_stream(upto=self._upto):
            with self._transaction() as cursor:
                for fold, shadow in folds:
                    shadow.copy(cursor, fold.add(block))
            self._count(len(block))
        with self._transaction() as cursor:
            for fold, shadow in folds:
                shadow.copy(cursor, fold.finish())

    def _fold_positions(self) -> None:
        """Fold the log in its order, for rows that mix streams."""
        mixed = [it for it in self._projections if not it.is_stream_keyed]
        shadows = [ProjectionTable(it, is_shadow=True) for it in mixed]
        if not shadows:
            return
        for block in self._blocks().by_position(upto=self._upto):
            with self._transaction() as cursor:
                for shadow in shadows:
                    shadow.apply(cursor, block)
            self._count(len(block))

    def _finish(self, projection: Projection[Any]) -> int:
        shadow = ProjectionTable(projection, is_shadow=True)
        if projection.is_stream_keyed:
            self._tell(Phase.INDEXING, projection)
            with self._transaction() as cursor:
                shadow.add_indexes(cursor)
        switch = Switch(self._database, self._reader, projection, upto=self._upto)
        self._tell(Phase.CATCHING_UP, projection)
        switch.catch_up()
        self._tell(Phase.SWITCHING, projection)
        return switch.run()

    def _described(self, projection: Projection[Any], position: int) -> RebuiltProjection:
        self._tell(Phase.DIGESTING, projection)
        row_count, digest = digest_of_rows(self._database, projection)
        return RebuiltProjection(
            projection=projection.name, position=position, row_count=row_count, digest=digest
        )

    def _blocks(self) -> LogBlocks:
        return LogBlocks(self._database.connection(), block_events=self._block_events)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A transaction on the session that holds the lock."""
        if self._database.session_no() != self._session_no:
            # The lock was lost with its session, and with it the right to these shadows.
            raise ServerUnavailable(server=self._database.server, reason="the session gone")
        with self._database.transaction() as cursor:
            cursor.execute(WITHOUT_LIMIT)
            yield cursor

    def _count(self, event_count: int) -> None:
        self._event_count += event_count
        self._tell(Phase.FOLDING)

    def _tell(self, phase: Phase, projection: Projection[Any] | None = None) -> None:
        self._on_progress(
            RebuildProgress(
                phase=phase,
                event_count=self._event_count,
                total=self._upto,
                projection=projection.name if projection else None,
            )
        )
