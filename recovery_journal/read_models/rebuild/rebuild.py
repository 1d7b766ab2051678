"""Rebuilds projections from the log, while all other work continues.

Events at or below a settled position never change, so processes side by side fold them, range of
streams by range, into bare shadow tables that no reader sees. Then these tables are indexed, catch
up, and replace the old ones, each in one short transaction (switch.py). Until then the old rows
serve, also when a rebuild fails or is killed; the registry (registry.py) records what is done, and
the next start does what is missing.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import RebuildUnderWay, ServerUnavailable, StoreBusy
from recovery_journal.log.block import BLOCK_EVENTS
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import WITHOUT_LIMIT, Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.settled_position import SettledPosition
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild import registry
from recovery_journal.read_models.rebuild.folding import RangeFolding
from recovery_journal.read_models.rebuild.indexing import WAIT_FOR_STRANGERS, index_shadows
from recovery_journal.read_models.rebuild.processes import Count, side_by_side
from recovery_journal.read_models.rebuild.progress import (
    Phase,
    ProgressObserver,
    RebuildProgress,
    RebuildReport,
    RebuiltProjection,
)
from recovery_journal.read_models.rebuild.rebuild_lock import RebuildLock, holder, is_under_way
from recovery_journal.read_models.rebuild.registry import RebuildState
from recovery_journal.read_models.rebuild.switch import Switch
from recovery_journal.read_models.tables.projection_table import (
    ProjectionTable,
    shadow_of,
    table_of,
)
from recovery_journal.read_models.tables.table_definition import TablePlace, drop_shadows

OUTAGE_LIMIT_S: Final = 120.0
PAUSE_S: Final = 0.25
STRANGER_LIMIT_S: Final = 60.0

# Small ranges lose little when a process dies, and leave none idle for long at the end.
MOST_EVENTS: Final = 20_000
FEWEST_EVENTS: Final = 1_000
RANGES_PER_PROCESS: Final = 16


class Rebuild:
    """Rebuilds some projections; those whose rows derive from single streams in one reading of the
    log, the others in a second one at the same time."""

    def __init__(
        self,
        database: Database,
        reader: SettledReader,
        *,
        projections: Sequence[Projection[Any]] = BUILT_IN,
        process_count: int | None = None,
        block_events: int = BLOCK_EVENTS,
        on_progress: ProgressObserver = lambda _progress: None,
    ) -> None:
        """`process_count` is the number of processes that fold; None means one for each core."""
        self._database = database
        self._reader = reader
        self._projections = projections
        self._process_count = process_count or os.cpu_count() or 1
        self._block_events = block_events
        self._on_progress = on_progress
        self._tracking = ProjectionTracking(database)
        self._lock = RebuildLock(database)
        self._reading_count = len({it.is_stream_keyed for it in projections}) or 1
        self._begun: RebuildState | None = None
        self._done_before = 0
        self._read_count = 0
        self._reported_at = 0.0
        self._switch_s: dict[str, float] = {}

    def run(self) -> RebuildReport:
        """Rebuild and switch; wait for a server that becomes unavailable meanwhile.

        Raises `RebuildUnderWay` where another process runs a rebuild, `InvalidInput` where a view
        depends on one of the tables, `StoreBusy` where every try of the switch would have made
        other sessions wait too long, `FoldFailed`, `UnknownEvent`, `CorruptEvent`, `ProcessLost`,
        `ServerUnavailable`; projections that were not switched by then keep their old rows, and the
        next start resumes the rebuild.
        """
        started = time.monotonic()
        while True:
            try:
                with self._alone():
                    return self._run(started)
            except ServerUnavailable:
                is_over = time.monotonic() - self._reported_at > OUTAGE_LIMIT_S
                if self._begun is None or is_over:
                    raise
            time.sleep(PAUSE_S)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire():
            raise self._under_way()
        try:
            yield
        finally:
            self._lock.release()

    def _under_way(self) -> Exception:
        with self._database.cursor() as cursor:
            begun = registry.find(cursor)
            is_rebuild = is_under_way(cursor, self._database.schema)
            found = holder(cursor, self._database.schema) or "a session that has just ended"
        if begun is None or not is_rebuild:  # not begun, just ended, or held by another program
            return StoreBusy(f"rebuild: its advisory lock is held by {found}", limit="0 s")
        done = begun.range_count - begun.open_range_count
        return RebuildUnderWay(
            process_id=begun.process_id,
            host=begun.host,
            since=f"{begun.started_at:%Y-%m-%d %H:%M:%S} UTC",
            progress=f"{done} of {begun.range_count} ranges of streams are folded",
        )

    def _run(self, started: float) -> RebuildReport:
        is_first = self._begun is None
        begun = self._begun = self._begin()
        if is_first:
            self._done_before = begun.read_count // self._reading_count
        left = [it for it in self._projections if it.name not in begun.switched]
        event_count = self._fold(begun, left)
        self._report(Phase.INDEXING)
        index_shadows(self._database, left, self._process_count)
        for projection in left:
            self._replace(projection, begun)
        as_of_s = self._index_for_as_of()
        rebuilt = tuple(self._result_of(projection) for projection in self._projections)
        with self._transaction() as cursor:
            registry.end(cursor)
        self._report(Phase.DONE)
        return RebuildReport(
            event_count=event_count,
            done_before=self._done_before,
            projections=rebuilt,
            seconds=time.monotonic() - started,
            as_of_s=as_of_s,
            process_count=self._process_count,
        )

    # -- beginning, or resuming ---------------------------------------------------------------

    def _begin(self) -> RebuildState:
        with self._transaction() as cursor:
            registry.create(cursor)
            for projection in self._projections:
                table_of(projection).require_no_views(cursor)
            found = registry.find(cursor)
            if found is not None and found.is_of(self._projections):
                registry.resume(cursor)
            else:
                if found is not None:
                    drop_shadows(cursor, found.projections)
                self._prepare(cursor)
            begun = registry.find(cursor)
        assert begun is not None
        return begun

    def _prepare(self, cursor: Cursor[DictRow]) -> None:
        for projection in self._projections:
            live, shadow = table_of(projection), shadow_of(projection)
            live.create_missing(cursor)
            self._tracking.register(cursor, projection)
            shadow.drop(cursor)
            ProjectionTable(projection, TablePlace.OLD).drop(cursor)
            if projection.is_stream_keyed:
                shadow.create_bare(cursor)
            else:
                shadow.create(cursor)
        upto = SettledPosition(self._database, self._reader).now()
        share = upto // (self._process_count * RANGES_PER_PROCESS)
        range_events = min(max(share, FEWEST_EVENTS), MOST_EVENTS)
        registry.begin(cursor, self._projections, upto=upto, range_events=range_events)

    # -- the phases ------------------------------------------------------------------------

    def _fold(self, begun: RebuildState, projections: Sequence[Projection[Any]]) -> int:
        """Fold until no range is left, including those that a dying process of an earlier start
        holds. Returns how many events the log has."""
        deadline = time.monotonic() + STRANGER_LIMIT_S
        while True:
            self._read_count = before = begun.read_count
            self._report(Phase.FOLDING)

            def report(count: int, before: int = before) -> None:
                self._read_count = before + count
                self._report(Phase.FOLDING)

            work = partial(self._work, begun, projections)
            side_by_side(work, self._process_count, report)
            with self._transaction() as cursor:
                found = registry.find(cursor)
            assert found is not None, "no other process ends a rebuild while its lock is held"
            self._read_count = found.read_count
            if not found.open_range_count:
                return max(found.event_count, found.mixed_event_count)
            if found.open_range_count < begun.open_range_count:
                deadline = time.monotonic() + STRANGER_LIMIT_S
            if time.monotonic() > deadline:
                raise StoreBusy("fold the last ranges of streams", limit=f"{STRANGER_LIMIT_S:g} s")
            begun = found
            time.sleep(PAUSE_S)

    def _work(
        self, begun: RebuildState, projections: Sequence[Projection[Any]], no: int, count: Count
    ) -> None:
        """The share of one process. The first one reads the log in its order, and then helps with
        the ranges."""
        folding = RangeFolding(
            self._database, begun, projections, block_events=self._block_events, count=count
        )
        if no == 0:
            folding.fold_positions()
        folding.fold_ranges()

    def _replace(self, projection: Projection[Any], begun: RebuildState) -> None:
        switch = Switch(
            self._database,
            self._reader,
            projection,
            upto=begun.upto,
            note=lambda cursor: registry.note_switch(cursor, projection.name),
        )
        self._report(Phase.CATCHING_UP, projection)
        switch.catch_up()
        self._report(Phase.SWITCHING, projection)
        self._switch_s[projection.name] = switch.run().seconds

    def _index_for_as_of(self) -> float:
        """Lists serve without these indexes, only slower, so they are created after the switch."""
        started = time.monotonic()
        for projection in self._projections:
            if projection.listing is not None:
                self._report(Phase.INDEXING_AS_OF, projection)
                with self._database.cursor() as cursor:
                    table_of(projection).add_as_of_index_beside_writers(cursor)
        return time.monotonic() - started

    def _result_of(self, projection: Projection[Any]) -> RebuiltProjection:
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
        self._lock.require_held()
        with self._database.transaction() as cursor:
            cursor.execute(WITHOUT_LIMIT)
            cursor.execute(WAIT_FOR_STRANGERS)
            yield cursor

    def _report(self, phase: Phase, projection: Projection[Any] | None = None) -> None:
        self._reported_at = time.monotonic()
        self._on_progress(
            RebuildProgress(
                phase=phase,
                event_count=self._read_count // self._reading_count,
                total=self._begun.position_count if self._begun else 0,
                projection=projection.name if projection else None,
                done_before=self._done_before,
                process_count=self._process_count,
            )
        )
