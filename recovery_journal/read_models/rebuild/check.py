"""Compares live rows with a fold of the log from scratch."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Generic

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.log.block import BLOCK_EVENTS, END, LogBlocks
from recovery_journal.postgres.database import WITHOUT_LIMIT, Database, one
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import PrimaryKey, Projection, Record, RowT
from recovery_journal.projections.stream_fold import folded
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.progress import Phase, ProgressObserver, RebuildProgress
from recovery_journal.read_models.tables.projection_table import ProjectionTable, table_of
from recovery_journal.read_models.tables.row_errors import (
    translating_read_errors,
    translating_write_errors,
)
from recovery_journal.read_models.tables.table_definition import TablePlace

DIFFERENCES_SHOWN: Final = 10

# Not read-only, because of the temporary table.
REPEATABLE_READ: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"

NEWEST_POSITION: Final = """
SELECT max(notification_id) AS position
FROM journal_events
WHERE originator_id = %(stream)s
"""


class RowDifference(Struct, frozen=True, kw_only=True):
    """One key whose rows differ: the stored row, and the row that the log gives; None where there
    is none."""

    key: tuple[Any, ...]
    stored: dict[str, Any] | None
    expected: dict[str, Any] | None


class CheckedProjection(Struct, frozen=True, kw_only=True):
    """The result of a check. `pending_count` keys differ only because the follower, at `position`,
    has not reached their newest event yet. `differences` holds the first of all differing keys.
    `digest` is that of the stored rows: equal rows, equal digest."""

    projection: str
    position: int
    row_count: int
    digest: str
    pending_count: int
    difference_count: int
    differences: tuple[RowDifference, ...]

    @property
    def is_right(self) -> bool:
        """Whether nothing differs but what is pending."""
        return self.difference_count == 0


class Check:
    """Folds the log from scratch and compares, one projection after the other, each in one
    snapshot. Nothing is changed."""

    def __init__(
        self,
        database: Database,
        *,
        projections: Sequence[Projection[Any]] = BUILT_IN,
        block_events: int = BLOCK_EVENTS,
        on_progress: ProgressObserver = lambda _progress: None,
    ) -> None:
        self._database = database
        self._projections = projections
        self._block_events = block_events
        self._on_progress = on_progress
        self._tracking = ProjectionTracking(database)

    def run(self) -> tuple[CheckedProjection, ...]:
        """Compare. Raises `RowsUnreadable`, `FoldFailed`, `UnknownEvent`, `CorruptEvent`,
        `ServerUnavailable`."""
        return tuple(self._check(projection) for projection in self._projections)

    def _check(self, projection: Projection[RowT]) -> CheckedProjection:
        with self._database.transaction() as cursor:
            cursor.execute(REPEATABLE_READ)
            cursor.execute(WITHOUT_LIMIT)
            place = self._tracking.find(projection.name)
            position = place.position if place else 0
            expected = self._expected(cursor, projection, position)
            comparison = _Comparison(projection, cursor, position)
            with translating_write_errors(projection):
                return comparison.of(_stored_rows(cursor, projection), expected)

    def _expected(
        self, cursor: Cursor[DictRow], projection: Projection[RowT], position: int
    ) -> Iterator[RowT]:
        blocks = LogBlocks(self._database, block_events=self._block_events)
        if projection.is_stream_keyed:
            # Followed rows are compared at the follower's position, inline ones at the end of the
            # log.
            upto = END if projection.is_inline else position
            return folded(
                projection, self._reported(blocks.by_stream(upto=upto), projection, position)
            )
        scratch = ProjectionTable(projection, TablePlace.CHECK)
        scratch.create(cursor)
        for block in self._reported(blocks.by_position(upto=position), projection, position):
            scratch.apply(cursor, block)
        return scratch.rows(cursor)

    def _reported(
        self, blocks: Iterator[list[Record]], projection: Projection[Any], position: int
    ) -> Iterator[list[Record]]:
        """The blocks; each is reported when it is read."""
        event_count = 0
        for block in blocks:
            event_count += len(block)
            self._on_progress(
                RebuildProgress(
                    phase=Phase.CHECKING,
                    event_count=event_count,
                    total=max(position, event_count),
                    projection=projection.name,
                )
            )
            yield block


def _stored_rows(cursor: Cursor[DictRow], projection: Projection[RowT]) -> Iterator[RowT]:
    with translating_read_errors(projection):
        yield from table_of(projection).rows(cursor)


class _Comparison(Generic[RowT]):
    """Compares two sequences of rows that are both in order of primary key."""

    def __init__(
        self, projection: Projection[RowT], cursor: Cursor[DictRow], position: int
    ) -> None:
        self._projection = projection
        self._form = table_of(projection).form
        self._cursor = cursor
        self._position = position
        self._digest = sha256()
        self._row_count = 0
        self._pending_count = 0
        self._difference_count = 0
        self._shown: list[RowDifference] = []

    def of(self, stored: Iterator[RowT], expected: Iterator[RowT]) -> CheckedProjection:
        for key, left, right in self._pairs(stored, expected):
            found = None if left is None else self._form.to_bytes(left)
            if found is not None:
                self._digest.update(found + b"\n")
                self._row_count += 1
            if found is None or right is None or found != self._form.to_bytes(right):
                self._note(key, left, right)
        return CheckedProjection(
            projection=self._projection.name,
            position=self._position,
            row_count=self._row_count,
            digest=f"rows1:{self._digest.hexdigest()}",
            pending_count=self._pending_count,
            difference_count=self._difference_count,
            differences=tuple(self._shown),
        )

    def _pairs(
        self, stored: Iterator[RowT], expected: Iterator[RowT]
    ) -> Iterator[tuple[PrimaryKey, RowT | None, RowT | None]]:
        """The rows of each key that either has."""
        primary_key = self._projection.primary_key
        left = ((primary_key(row), True, row) for row in stored)
        right = ((primary_key(row), False, row) for row in expected)
        key_of = itemgetter(0)
        for key, rows in groupby(merge(left, right, key=key_of), key=key_of):
            found = {is_stored: row for _, is_stored, row in rows}
            yield key, found.get(True), found.get(False)

    def _note(self, key: PrimaryKey, stored: RowT | None, expected: RowT | None) -> None:
        if self._is_pending(key):
            self._pending_count += 1
            return
        self._difference_count += 1
        if len(self._shown) < DIFFERENCES_SHOWN:
            difference = RowDifference(
                key=key, stored=self._readable(stored), expected=self._readable(expected)
            )
            self._shown.append(difference)

    def _is_pending(self, key: PrimaryKey) -> bool:
        """Whether the follower has not reached an event yet that its program did not write
        inline."""
        if not self._projection.is_inline:
            return False
        newest = one(self._cursor.execute(NEWEST_POSITION, {"stream": key[0]}))["position"]
        return newest is not None and newest > self._position

    def _readable(self, row: RowT | None) -> dict[str, Any] | None:
        return None if row is None else msgspec.json.decode(self._form.to_bytes(row), type=dict)
