"""The loop that folds new events into the rows of projections."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
import psycopg
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.domain.errors import (
    CorruptEvent,
    FoldFailed,
    PositionNotReached,
    Retry,
    RowUnstorable,
    TailLost,
    UnknownEvent,
)
from recovery_journal.domain.events import tag_of
from recovery_journal.domain.ranges import require_kind
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.process.back_off import FOLLOWING, LONGEST_OUTAGE_PAUSE_S, BackOff
from recovery_journal.process.signals import stopping_on_signals
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import Projection, Record
from recovery_journal.read_models.following.outdated import OutdatedProjection, outdated
from recovery_journal.read_models.following.tracking import (
    Followed,
    FollowingState,
    ProjectionTracking,
)
from recovery_journal.read_models.tables.projection_table import table_of

# The events of one recovery are apart by the size of its cohort's steps: a long batch writes its
# row once, and not after each of them. This many events take about 80 MB.
BATCH_EVENTS: Final = 30_000
LARGEST_BATCH_EVENTS: Final = 1_000_000
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = FOLLOWING

# The errors of a projection's own rows: values that a column cannot hold, or rows that are not of
# the projection's present type.
ROW_ERRORS: Final = (psycopg.Error, msgspec.MsgspecError, RowUnstorable)


# Queried under the lock of the tracking row, which a skip takes too.
SKIPPED: Final = """
SELECT position
FROM skipped_events
WHERE position > %(after)s AND position <= %(upto)s
"""


class Source(Protocol):
    """Where a follower reads and writes; a `Journal` is one. Its `projections`, if it has some, are
    those to follow."""

    @property
    def database(self) -> Database:
        """The schema with the log and the projections."""

    @property
    def reader(self) -> SettledReader:
        """The log in order."""


class Follower:
    """Folds settled events, a batch for each projection, until it is stopped: by `stop`, by its
    event, or by SIGTERM or SIGINT.

    Rows and position are written in one transaction, under a lock that ends with the connection: of
    two followers of one projection, one waits. A projection that cannot fold an event stops there,
    with the error in its tracking row, while the others continue; a new follower, or a rebuilt
    projection, retries. Rows of another fold are left alone until a rebuild has replaced them by
    rows of this program's fold. `on_problem` is called with everything that kept a round from
    completing.
    """

    def __init__(
        self,
        source: Source,
        *,
        projections: Sequence[Projection[Any]] | None = None,
        batch_events: int = BATCH_EVENTS,
        longest_pause_s: float = LONGEST_PAUSE_S,
        on_problem: Callable[[Exception], object] = lambda _problem: None,
    ) -> None:
        inputs.having("source", source, "a Journal", "database", "reader")
        inputs.whole_number("batch_events", batch_events, range(1, LARGEST_BATCH_EVENTS + 1))
        inputs.seconds("longest_pause_s", longest_pause_s)
        inputs.observer("on_problem", on_problem)
        self._database = source.database
        self._reader = source.reader
        if projections is None:
            projections = getattr(source, "projections", BUILT_IN)
        projections = inputs.several("projections", projections)
        for projection in projections:
            require_kind("projections", projection, Projection, "projections")
        self._projections = {projection.name: projection for projection in projections}
        self._tracking = ProjectionTracking(source.database)
        self._batch_events = batch_events
        self._longest_pause_s = longest_pause_s
        self._on_problem = on_problem
        self._stopped: set[tuple[str, int]] = set()
        self._reported: set[OutdatedProjection] = set()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the loop after the current batch."""
        self._stop.set()

    def run(self) -> None:
        """Follow repeatedly. Pauses grow while there is nothing new, up to 0.25 s, and while the
        server cannot be reached, up to 5 s."""
        back_off = BackOff(SHORTEST_PAUSE_S, self._longest_pause_s)
        with stopping_on_signals(self._stop):
            while not self._stop.is_set():
                longest_s = None
                event_count = 0
                try:
                    event_count = self.step()
                except Retry as problem:
                    self._on_problem(problem)
                    longest_s = LONGEST_OUTAGE_PAUSE_S
                if event_count:
                    back_off.reset()
                if event_count < self._batch_events:
                    self._stop.wait(back_off.pause_s(longest_s))

    def catch_up(self, timeout_s: float) -> int:
        """Follow until every projection that is not stopped has everything that is settled now;
        return the position. Raises `PositionNotReached`."""
        deadline = time.monotonic() + inputs.seconds("timeout_s", timeout_s)
        needed = self._reader.settled_position()
        back_off = BackOff(SHORTEST_PAUSE_S, self._longest_pause_s)
        while behind := [place for place in self._followable() if place.position < needed]:
            if time.monotonic() >= deadline:
                place = behind[0]
                raise PositionNotReached(
                    place.projection, found=place.position, needed=needed, timeout_s=timeout_s
                )
            if not self.step():
                time.sleep(back_off.pause_s())
        return needed

    def step(self) -> int:
        """One round: a batch for every projection. Projections at the same position share one read
        of the log. Returns the greatest number of events that one of them folded."""
        by_position: dict[int, list[Projection[Any]]] = {}
        for place in self._followable():
            projection = self._projections[place.projection]
            by_position.setdefault(place.position, []).append(projection)
        return max(
            (self._follow(projections, after) for after, projections in by_position.items()),
            default=0,
        )

    def _followable(self) -> list[Followed]:
        return [place for place in self._tracking.all() if self._may_follow(place)]

    def _may_follow(self, place: Followed) -> bool:
        projection = self._projections.get(place.projection)
        if projection is None:
            return False
        if not place.is_of(projection):
            self._report_once(outdated(place, projection))
            return False
        is_stopped = place.state is FollowingState.STOPPED
        return not (is_stopped and (place.projection, place.position) in self._stopped)

    def _report_once(self, found: OutdatedProjection) -> None:
        if found not in self._reported:
            self._reported.add(found)
            self._on_problem(found.error())

    def _follow(self, projections: Sequence[Projection[Any]], after: int) -> int:
        try:
            page = self._reader.read(after, self._batch_events)
        except (UnknownEvent, CorruptEvent, TailLost) as error:
            for projection in projections:
                self._stop_at(projection, after, error)
            return 0
        if page.settled == after:
            return 0
        return max(
            self._fold(projection, after, page.records, page.settled) for projection in projections
        )

    def _fold(
        self, projection: Projection[Any], after: int, records: Sequence[Record], upto: int
    ) -> int:
        """Fold these records, or those before the first that the projection cannot fold."""
        try:
            return self._commit(projection, after, records, upto)
        except FoldFailed as error:
            failed = error
        except ROW_ERRORS as error:
            if len(records) != 1:
                return self._fold_halves(projection, after, records, upto)
            failed = _failure(projection, records[0], error)
        before = [record for record in records if record.position < failed.position]
        event_count = self._commit(projection, after, before, failed.position - 1)
        self._stop_at(projection, failed.position - 1, failed)
        return event_count

    def _fold_halves(
        self, projection: Projection[Any], after: int, records: Sequence[Record], upto: int
    ) -> int:
        """The table refuses one of the rows: find out which. After a half that stopped, the other
        is not folded, because the position is not at its beginning."""
        middle = len(records) // 2
        between = records[middle - 1].position
        event_count = self._fold(projection, after, records[:middle], between)
        return event_count + self._fold(projection, between, records[middle:], upto)

    def _commit(
        self, projection: Projection[Any], after: int, records: Sequence[Record], upto: int
    ) -> int:
        with self._database.transaction() as cursor:
            place = self._tracking.lock(cursor, projection.name)
            if place is None or place.position != after or not place.is_of(projection):
                return 0  # another follower, or a rebuild, holds it or has advanced it
            if upto > after:
                records = without_skipped(cursor, records, after=after, upto=upto)
                table_of(projection).apply(cursor, records)
                self._tracking.advance(cursor, projection.name, upto)
        return len(records)

    def _stop_at(self, projection: Projection[Any], position: int, error: Exception) -> None:
        with self._database.transaction() as cursor:
            place = self._tracking.lock(cursor, projection.name)
            if place is None or place.position != position or not place.is_of(projection):
                return
            self._tracking.stop(cursor, projection.name, str(error))
        self._stopped.add((projection.name, position))
        self._on_problem(error)


def without_skipped(
    cursor: Cursor[DictRow], records: Sequence[Record], *, after: int, upto: int
) -> list[Record]:
    """The records without those that were skipped since they were read."""
    places = {"after": after, "upto": upto}
    skipped = {row["position"] for row in cursor.execute(SKIPPED, places).fetchall()}
    return [record for record in records if record.position not in skipped]


def _failure(projection: Projection[Any], record: Record, error: Exception) -> FoldFailed:
    found = error.reason if isinstance(error, RowUnstorable) else str(error)
    return FoldFailed(
        projection.name,
        position=record.position,
        attempt_id=record.event.originator_id,
        tag=tag_of(record.event),
        reason=f"a row that cannot be stored: {' '.join(found.split())}",
    )
