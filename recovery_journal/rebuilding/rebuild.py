"""Rebuilding projections from the log, beside everything that goes on.

What is at or below a settled position never changes, so rows are folded from it into bare shadow
tables that nobody sees. Then these are indexed, catch up, and take the place of the old ones in
one short transaction (switch.py). Until then the old rows serve, also when a rebuild fails.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from msgspec import Struct

from domain.errors import ServerUnavailable, StoreBusy
from projections.catalog import BUILT_IN
from projections.projection import Projection
from projections.stream_fold import StreamFold
from recovery_journal.following.projection_table import table_of
from recovery_journal.following.tracking import ProjectionTracking
from recovery_journal.log.block import BLOCK_EVENTS, LogBlocks
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.rebuilding.row_digest import digest_of_rows
from recovery_journal.rebuilding.switch import Switch, shadow_of

# The transactions that fill and index shadows may take longer than those of workers.
WITHOUT_LIMIT = "SET LOCAL statement_timeout = 0"

TRY_LOCK = """
SELECT pg_try_advisory_lock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)) AS ours
"""

UNLOCK = """
SELECT pg_advisory_unlock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0))
"""


class Phase(StrEnum):
    """What a rebuild is at."""

    FOLDING = "folding"
    INDEXING = "indexing"
    CATCHING_UP = "catching up"
    SWITCHING = "switching"
    DIGESTING = "digesting"
    DONE = "done"


class RebuildProgress(Struct, frozen=True, kw_only=True):
    """How far a rebuild is. `total` is what the positions promise: with gaps between them, the
    count of events ends a little below it."""

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
        self._upto = 0
        self._session_no = 0
        self._read_count = 0

    def run(self) -> RebuildReport:
        """Rebuild and switch. Raises `StoreBusy` where another rebuild is at work or the switch
        found no quiet moment, `FoldFailed`, `UnknownEvent`, `CorruptEvent`, `ServerUnavailable`;
        projections that were not switched by then keep their old rows."""
        started = time.monotonic()
        with self._alone():
            self._upto = self._settled_position()
            self._begin()
            event_count = max(self._fold_streams(), self._fold_positions())
            positions = {it.name: self._finish(it) for it in self._projections}
            rebuilt = tuple(self._described(it, positions[it.name]) for it in self._projections)
        self._tell(Phase.DONE)
        return RebuildReport(
            event_count=event_count,
            projections=rebuilt,
            seconds=time.monotonic() - started,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One rebuild in a schema at a time; the lock is the session's, so it dies with it."""
        with self._database.cursor() as cursor:
            whose = {"schema": self._database.schema}
            row = cursor.execute(TRY_LOCK, whose).fetchone()
            if row is None or not row["ours"]:
                raise StoreBusy("rebuild: another rebuild is at work", limit="0 s")
            self._session_no = self._database.session_no()
            try:
                yield
            finally:
                if self._database.session_no() == self._session_no:
                    cursor.execute(UNLOCK, whose)

    def _settled_position(self) -> int:
        # A follower's position is settled by construction; a cold reader may know less.
        followed = [place.position for place in self._tracking.all()]
        return max([self._reader.settled_position(), *followed])

    def _begin(self) -> None:
        for projection in self._projections:
            live, shadow = table_of(projection), shadow_of(projection)
            with self._transaction() as cursor:
                if not live.exists(cursor):
                    live.create(cursor)
                self._tracking.register(cursor, projection)
                shadow.drop(cursor)
                if projection.is_stream_keyed:
                    shadow.create_bare(cursor)
                else:
                    shadow.create(cursor)

    def _fold_streams(self) -> int:
        """Fold stream after stream, copying the rows that are final after every block. Returns
        how many events there were."""
        keyed = [it for it in self._projections if it.is_stream_keyed]
        folds = [(StreamFold(it), shadow_of(it)) for it in keyed]
        before = self._read_count
        if not folds:
            return 0
        for block in self._blocks().by_stream(upto=self._upto):
            with self._transaction() as cursor:
                for fold, shadow in folds:
                    shadow.copy(cursor, fold.add(block))
            self._count(len(block))
        with self._transaction() as cursor:
            for fold, shadow in folds:
                shadow.copy(cursor, fold.finish())
        return self._read_count - before

    def _fold_positions(self) -> int:
        """Fold the log in its order, for rows that mix streams. Returns how many events there
        were."""
        mixed = [it for it in self._projections if not it.is_stream_keyed]
        shadows = [shadow_of(it) for it in mixed]
        before = self._read_count
        if not shadows:
            return 0
        for block in self._blocks().by_position(upto=self._upto):
            with self._transaction() as cursor:
                for shadow in shadows:
                    shadow.apply(cursor, block)
            self._count(len(block))
        return self._read_count - before

    def _finish(self, projection: Projection[Any]) -> int:
        shadow = shadow_of(projection)
        self._tell(Phase.INDEXING, projection)
        with self._transaction() as cursor:
            if projection.is_stream_keyed:
                shadow.add_indexes(cursor)
            shadow.analyze(cursor)
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
        self._read_count += event_count
        self._tell(Phase.FOLDING)

    def _tell(self, phase: Phase, projection: Projection[Any] | None = None) -> None:
        self._on_progress(
            RebuildProgress(
                phase=phase,
                event_count=self._read_count,
                total=self._upto * len({it.is_stream_keyed for it in self._projections}),
                projection=projection.name if projection else None,
            )
        )
