"""Rebuilding projections from the log, beside everything that goes on.

What is at or below a settled position never changes, so rows are folded from it into bare shadow
tables that nobody sees: by processes side by side, range of streams by range. Then these tables
are indexed, catch up, and take the place of the old ones, each in one short transaction
(switch.py). Until then the old rows serve, also when a rebuild fails or is killed; the registry
(registry.py) knows what is done, and the next start does what is missing.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow

from domain.errors import RebuildUnderWay, ServerUnavailable, StoreBusy
from projections.catalog import BUILT_IN
from projections.projection import Projection
from recovery_journal.following.projection_table import ProjectionTable, shadow_of, table_of
from recovery_journal.following.table_definition import Place
from recovery_journal.following.tracking import ProjectionTracking
from recovery_journal.log.block import BLOCK_EVENTS
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.rebuilding import lock
from recovery_journal.rebuilding.folding import WITHOUT_LIMIT, Folding
from recovery_journal.rebuilding.processes import Count, side_by_side
from recovery_journal.rebuilding.progress import (
    Observer,
    Phase,
    RebuildProgress,
    RebuildReport,
    RebuiltProjection,
)
from recovery_journal.rebuilding.registry import Begun, Registry
from recovery_journal.rebuilding.switch import Switch

OUTAGE_LIMIT_S: Final = 120.0
PAUSE_S: Final = 0.25
STRANGER_LIMIT_S: Final = 60.0

# Small ranges lose little when a process dies, and leave none idle for long at the end.
MOST_EVENTS: Final = 20_000
FEWEST_EVENTS: Final = 1_000
RANGES_PER_PROCESS: Final = 16

# The server's own helpers would only be more processes than there are cores.
INDEX_ALONE = """
SELECT set_config('statement_timeout', '0', true),
    set_config('max_parallel_maintenance_workers', '0', true),
    set_config('synchronous_commit', 'off', true)
"""


class Rebuild:
    """Rebuilds some projections; those whose rows derive from single streams in one reading of
    the log, the others in a second one at the same time."""

    def __init__(
        self,
        database: Database,
        reader: SettledReader,
        *,
        projections: Sequence[Projection[Any]] = BUILT_IN,
        process_count: int | None = None,
        block_events: int = BLOCK_EVENTS,
        on_progress: Observer = lambda _progress: None,
    ) -> None:
        """`process_count` is the number of processes that fold; None means one for each core."""
        self._database = database
        self._reader = reader
        self._projections = projections
        self._process_count = process_count or os.cpu_count() or 1
        self._block_events = block_events
        self._on_progress = on_progress
        self._tracking = ProjectionTracking(database)
        self._registry = Registry()
        self._session_no = 0
        self._begun: Begun | None = None
        self._told = 0.0
        self._read_count = 0
        self._switch_s: dict[str, float] = {}

    def run(self) -> RebuildReport:
        """Rebuild and switch. A server that goes away meanwhile is waited for.

        Raises `RebuildUnderWay` where another process is at it, `StoreBusy` where the switch
        found no quiet moment, `FoldFailed`, `UnknownEvent`, `CorruptEvent`, `ProcessLost`,
        `ServerUnavailable`; projections that were not switched by then keep their old rows, and
        the next start goes on from there.
        """
        started = time.monotonic()
        done_before: int | None = None
        while True:
            try:
                with self._alone():
                    begun = self._begin()
                    if done_before is None:
                        done_before = self._done(begun)
                    return self._finished(begun, started, done_before)
            except ServerUnavailable:
                is_over = time.monotonic() - self._told > OUTAGE_LIMIT_S
                if self._begun is None or is_over:
                    raise
            time.sleep(PAUSE_S)

    # -- one at a time ---------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One rebuild in a schema at a time; the lock is the session's, so it dies with it."""
        with self._database.cursor() as cursor:
            whose = {"schema": self._database.schema}
            row = cursor.execute(lock.TRY, whose).fetchone()
            if row is None or not row["ours"]:
                raise self._under_way(cursor)
            self._session_no = self._database.session_no()
            try:
                yield
            finally:
                if self._database.session_no() == self._session_no:
                    cursor.execute(lock.UNLOCK, whose)

    def _under_way(self, cursor: Cursor[DictRow]) -> Exception:
        begun = self._registry.find(cursor)
        if begun is None:  # it has the lock, and has not begun or has just ended
            return StoreBusy("rebuild: another rebuild is at work", limit="0 s")
        done = begun.range_count - begun.open_range_count
        return RebuildUnderWay(
            process_id=begun.process_id,
            host=begun.host,
            since=f"{begun.started_at:%Y-%m-%d %H:%M:%S} UTC",
            progress=f"{done} of {begun.range_count} ranges of streams are folded",
        )

    # -- beginning, or going on ------------------------------------------------------------

    def _begin(self) -> Begun:
        with self._transaction() as cursor:
            self._registry.create(cursor)
            found = self._registry.find(cursor)
            if found is not None and found.is_of(self._projections):
                self._registry.go_on(cursor)
            else:
                self._prepare(cursor)
            self._begun = self._registry.find(cursor)
        assert self._begun is not None
        return self._begun

    def _prepare(self, cursor: Cursor[DictRow]) -> None:
        for projection in self._projections:
            live, shadow = table_of(projection), shadow_of(projection)
            live.require_no_views(cursor)
            if not live.exists(cursor):
                live.create(cursor)
            self._tracking.register(cursor, projection)
            shadow.drop(cursor)
            ProjectionTable(projection, Place.OLD).drop(cursor)
            if projection.is_stream_keyed:
                shadow.create_bare(cursor)
            else:
                shadow.create(cursor)
        upto = self._settled_position()
        share = upto // (self._process_count * RANGES_PER_PROCESS)
        range_events = min(max(share, FEWEST_EVENTS), MOST_EVENTS)
        self._registry.begin(cursor, self._projections, upto=upto, range_events=range_events)

    def _settled_position(self) -> int:
        # A follower's position is settled by construction; a cold reader may know less.
        followed = [place.position for place in self._tracking.all()]
        return max([self._reader.settled_position(), *followed])

    def _done(self, begun: Begun) -> int:
        """How many events an earlier start has folded."""
        return begun.event_count + begun.mixed_event_count

    # -- the phases ------------------------------------------------------------------------

    def _finished(self, begun: Begun, started: float, done_before: int) -> RebuildReport:
        left = [it for it in self._projections if it.name not in begun.switched]
        event_count = self._fold(begun, left, done_before)
        self._index(left, done_before)
        for projection in left:
            self._replace(projection, begun, done_before)
        as_of_s = self._index_for_as_of(done_before)
        rebuilt = tuple(self._described(projection) for projection in self._projections)
        with self._transaction() as cursor:
            self._registry.end(cursor)
        self._tell(Phase.DONE, done_before)
        return RebuildReport(
            event_count=event_count,
            done_before=done_before,
            projections=rebuilt,
            seconds=time.monotonic() - started,
            as_of_s=as_of_s,
            process_count=self._process_count,
        )

    def _fold(self, begun: Begun, projections: Sequence[Projection[Any]], done_before: int) -> int:
        """Until no range is left: also those that a dying process of an earlier start holds.
        Returns how many events the log has."""
        deadline = time.monotonic() + STRANGER_LIMIT_S
        while True:
            self._fold_once(begun, projections, done_before)
            with self._transaction() as cursor:
                found = self._registry.find(cursor)
            assert found is not None, "nobody else ends a rebuild while its lock is held"
            self._read_count = self._done(found)
            if not found.open_range_count:
                return max(found.event_count, found.mixed_event_count)
            if found.open_range_count < begun.open_range_count:
                deadline = time.monotonic() + STRANGER_LIMIT_S
            if time.monotonic() > deadline:
                raise StoreBusy("take the last ranges of streams", limit=f"{STRANGER_LIMIT_S:g} s")
            begun = found
            time.sleep(PAUSE_S)

    def _fold_once(
        self, begun: Begun, projections: Sequence[Projection[Any]], done_before: int
    ) -> None:
        before = self._done(begun)

        def tell(count: int) -> None:
            self._read_count = before + count
            self._tell(Phase.FOLDING, done_before)

        def work(no: int, count: Count) -> None:
            self._work(begun, projections, no, count)

        tell(0)
        side_by_side(work, self._process_count, tell)

    def _work(
        self, begun: Begun, projections: Sequence[Projection[Any]], no: int, count: Count
    ) -> None:
        """The share of one process. The log is read in its order by the first, which then helps
        with the ranges."""
        folding = Folding(
            self._database,
            begun,
            projections,
            block_events=self._block_events,
            count=count,
        )
        if no == 0:
            folding.fold_positions()
        folding.fold_ranges()

    def _index(self, projections: Sequence[Projection[Any]], done_before: int) -> None:
        """Index by index, then table by table, as many at once as there are processes."""
        self._tell(Phase.INDEXING, done_before)
        shadows = [shadow_of(projection) for projection in projections]
        indexes = [(shadow, name) for shadow in shadows for name in shadow.index_names]

        def add_indexes(no: int, _count: Count) -> None:
            for shadow, name in indexes[no :: self._process_count]:
                with self._database.transaction() as cursor:
                    cursor.execute(INDEX_ALONE)
                    shadow.add_index(cursor, name)

        def analyze(no: int, _count: Count) -> None:
            for shadow in shadows[no :: self._process_count]:
                with self._database.transaction() as cursor:
                    cursor.execute(INDEX_ALONE)
                    shadow.add_key(cursor)
                    shadow.analyze(cursor)

        for work in (add_indexes, analyze):
            side_by_side(work, self._process_count, lambda _count: None)

    def _replace(self, projection: Projection[Any], begun: Begun, done_before: int) -> None:
        switch = Switch(
            self._database,
            self._reader,
            projection,
            upto=begun.upto,
            note=lambda cursor: self._registry.note_switch(cursor, projection.name),
        )
        self._tell(Phase.CATCHING_UP, done_before, projection)
        switch.catch_up()
        self._tell(Phase.SWITCHING, done_before, projection)
        self._switch_s[projection.name] = switch.run().seconds

    def _index_for_as_of(self, done_before: int) -> float:
        """Lists serve without these indexes, only slower, so they are made after the switch."""
        started = time.monotonic()
        for projection in self._projections:
            if projection.listing is not None:
                self._tell(Phase.INDEXING_AS_OF, done_before, projection)
                with self._database.cursor() as cursor:
                    table_of(projection).add_as_of_index_beside_writers(cursor)
        return time.monotonic() - started

    def _described(self, projection: Projection[Any]) -> RebuiltProjection:
        place = self._tracking.find(projection.name)
        with self._transaction() as cursor:
            row_count = table_of(projection).count(cursor)
        return RebuiltProjection(
            projection=projection.name,
            position=place.position if place else 0,
            row_count=row_count,
            switch_s=self._switch_s.get(projection.name, 0.0),
        )

    # -- details ---------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Cursor[DictRow]]:
        """A transaction on the session that holds the lock."""
        if self._database.session_no() != self._session_no:
            # The lock was lost with its session, and with it the right to these shadows.
            raise ServerUnavailable(server=self._database.server, reason="the session gone")
        with self._database.transaction() as cursor:
            cursor.execute(WITHOUT_LIMIT)
            yield cursor

    def _tell(
        self, phase: Phase, done_before: int, projection: Projection[Any] | None = None
    ) -> None:
        self._told = time.monotonic()
        begun = self._begun
        readings = len({it.is_stream_keyed for it in self._projections})
        self._on_progress(
            RebuildProgress(
                phase=phase,
                event_count=self._read_count,
                total=(begun.upto if begun else 0) * readings,
                projection=projection.name if projection else None,
                done_before=done_before,
                process_count=self._process_count,
            )
        )
