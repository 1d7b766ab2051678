"""The record of what a rebuild has done so far, in the database: killed at any moment, it can be
resumed. Its functions work inside of the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.log.numbers import SKIPPED
from recovery_journal.postgres.database import one
from recovery_journal.process.identity import incarnation
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.tracking import fold_of

TABLES: Final = files(__package__).joinpath("registry.sql")

READ: Final = f"""
SELECT rebuilds.*, projections.*, ranges.*, upto - skipped_count AS position_count
FROM rebuilds
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_array(projection, fold_version, fold_hash)), '[]') AS folds,
        coalesce(json_agg(projection) FILTER (WHERE switched_at IS NOT NULL), '[]') AS switched,
        coalesce(max(position) FILTER (WHERE switched_at IS NULL), 0) AS position,
        coalesce(max(event_count), 0) AS mixed_event_count
    FROM rebuild_projections
    WHERE rebuild_no = rebuilds.rebuild_no
) AS projections
CROSS JOIN LATERAL (
    SELECT count(*) AS range_count,
        count(*) FILTER (WHERE done_at IS NULL) AS open_range_count,
        coalesce(sum(event_count), 0)::bigint AS event_count
    FROM rebuild_ranges
    WHERE rebuild_no = rebuilds.rebuild_no
) AS ranges
CROSS JOIN LATERAL (
    SELECT coalesce(sum(skipped_to_position - last_position), 0)::bigint AS skipped_count
    FROM ({SKIPPED}) AS skipped
    WHERE skipped_to_position <= upto
) AS skipped
"""

BEGIN: Final = """
INSERT INTO rebuilds (upto, host, process_id)
VALUES (%(upto)s, %(host)s, %(process_id)s)
RETURNING rebuild_no
"""

RESUME: Final = """
UPDATE rebuilds
SET host = %(host)s, process_id = %(process_id)s, started_at = clock_timestamp()
"""

ADD_PROJECTION: Final = """
INSERT INTO rebuild_projections (rebuild_no, projection, fold_version, fold_hash)
VALUES (%(rebuild_no)s, %(projection)s, %(fold_version)s, %(fold_hash)s)
"""

# Positions that were skipped after a restore hold no event, and may be millions of millions.
ADD_RANGES: Final = f"""
INSERT INTO rebuild_ranges (rebuild_no, range_no, after_position, last_position)
SELECT %(rebuild_no)s,
    row_number() OVER (ORDER BY after),
    after,
    least(after + %(range_events)s, span.last)
FROM (
    SELECT lag(skipped_to_position, 1, 0::bigint) OVER (ORDER BY skipped_no) AS since,
        least(last_position, %(upto)s) AS last
    FROM ({SKIPPED}) AS skipped
    UNION ALL
    SELECT coalesce(max(skipped_to_position), 0), %(upto)s
    FROM skipped_numbers
) AS span
CROSS JOIN generate_series(span.since, span.last - 1, %(range_events)s) AS after
"""

# A process locks the row of its range until its transaction ends, which the loss of its connection
# ends too.
TAKE_RANGE: Final = """
SELECT range_no AS no, after_position AS after, last_position AS last
FROM rebuild_ranges
WHERE rebuild_no = %(rebuild_no)s
    AND done_at IS NULL
ORDER BY range_no
LIMIT 1
FOR UPDATE SKIP LOCKED
"""

FINISH_RANGE: Final = """
UPDATE rebuild_ranges
SET event_count = %(event_count)s, done_at = clock_timestamp()
WHERE rebuild_no = %(rebuild_no)s
    AND range_no = %(range_no)s
"""

POSITION: Final = """
SELECT position
FROM rebuild_projections
WHERE rebuild_no = %(rebuild_no)s
    AND projection = %(projection)s
FOR UPDATE
"""

ADVANCE: Final = """
UPDATE rebuild_projections
SET position = %(position)s, event_count = event_count + %(event_count)s
WHERE rebuild_no = %(rebuild_no)s
    AND projection = ANY(%(projections)s)
"""

SWITCHED: Final = """
UPDATE rebuild_projections
SET switched_at = clock_timestamp()
WHERE projection = %(projection)s
"""


class StreamRange(Struct, frozen=True, kw_only=True):
    """The streams that began behind `after` and at or before `last`, both positions."""

    no: int
    after: int
    last: int


class RebuildState(Struct, frozen=True, kw_only=True):
    """An unfinished rebuild. `event_count` is how many events are in the ranges that are done; the
    projections whose rows mix streams have reached `position`, by `mixed_event_count` events.
    `position_count` is the number of positions up to `upto` that may hold an event."""

    rebuild_no: int
    upto: int
    host: str
    process_id: int
    started_at: datetime
    folds: frozenset[tuple[str, int, str]]
    switched: frozenset[str]
    position: int
    position_count: int
    mixed_event_count: int
    range_count: int
    open_range_count: int
    event_count: int

    @property
    def projections(self) -> list[str]:
        """The names of all projections whose rows it prepares, or has switched."""
        return sorted(name for name, _, _ in self.folds)

    @property
    def read_count(self) -> int:
        """How many events have been read for what is done, in both readings together."""
        return self.event_count + self.mixed_event_count

    def is_of(self, projections: Sequence[Projection[Any]]) -> bool:
        """Whether it prepares the rows of exactly these projections, by their present folds."""
        return self.folds == {tuple(fold_of(projection).values()) for projection in projections}


def create(cursor: Cursor[DictRow]) -> None:
    """Make the tables, if they are not there."""
    cursor.execute(TABLES.read_bytes())


def find(cursor: Cursor[DictRow]) -> RebuildState | None:
    """The unfinished rebuild, if there is one."""
    row = cursor.execute(READ.encode()).fetchone()
    return None if row is None else msgspec.convert(row, RebuildState)


def begin(
    cursor: Cursor[DictRow], projections: Sequence[Projection[Any]], *, upto: int, range_events: int
) -> None:
    """Begin from scratch; delete what another rebuild has left."""
    end(cursor)
    begun = one(cursor.execute(BEGIN, {"upto": upto, **_this_process()}))
    for projection in projections:
        cursor.execute(ADD_PROJECTION, {**begun, **fold_of(projection)})
    if any(projection.is_stream_keyed for projection in projections):
        wanted = {**begun, "range_events": range_events, "upto": upto}
        cursor.execute(ADD_RANGES, wanted)


def resume(cursor: Cursor[DictRow]) -> None:
    """Record that this process now runs the rebuild."""
    cursor.execute(RESUME, _this_process())


def end(cursor: Cursor[DictRow]) -> None:
    """Delete the rebuild: nothing is left to do, or another one begins."""
    cursor.execute("DELETE FROM rebuilds")


def take_range(cursor: Cursor[DictRow], rebuild_no: int) -> StreamRange | None:
    """A range that is not done and that no process holds, locked for this transaction. None
    where there is none."""
    row = cursor.execute(TAKE_RANGE, {"rebuild_no": rebuild_no}, prepare=True).fetchone()
    return None if row is None else msgspec.convert(row, StreamRange)


def finish_range(
    cursor: Cursor[DictRow], rebuild_no: int, range_no: int, *, event_count: int
) -> None:
    """Record, in the transaction of its rows, that a range is done."""
    done = {"rebuild_no": rebuild_no, "range_no": range_no, "event_count": event_count}
    cursor.execute(FINISH_RANGE, done, prepare=True)


def lock_position(cursor: Cursor[DictRow], rebuild_no: int, projection: str) -> int | None:
    """How far a projection's shadow has been folded, locked; None if this rebuild is over."""
    wanted = {"rebuild_no": rebuild_no, "projection": projection}
    row = cursor.execute(POSITION, wanted, prepare=True).fetchone()
    return None if row is None else row["position"]


def advance(
    cursor: Cursor[DictRow],
    rebuild_no: int,
    projections: Sequence[str],
    *,
    position: int,
    event_count: int,
) -> None:
    """Record, in the transaction of the rows, how far these shadows have been folded, by so
    many more events."""
    place = {
        "rebuild_no": rebuild_no,
        "projections": list(projections),
        "position": position,
        "event_count": event_count,
    }
    cursor.execute(ADVANCE, place, prepare=True)


def note_switch(cursor: Cursor[DictRow], projection: str) -> None:
    """Record, in the transaction of the switch, that a projection is done."""
    cursor.execute(SWITCHED, {"projection": projection})


def _this_process() -> dict[str, Any]:
    life = incarnation()
    return {"host": life.host, "process_id": life.pid}
