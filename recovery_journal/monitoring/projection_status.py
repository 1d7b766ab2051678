"""The state of each projection: which fold made its rows, how far they have followed, and why no
further."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.monitoring.unfinished_rebuild import UnfinishedRebuild, unfinished_rebuilds
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.outdated import outdated
from recovery_journal.read_models.following.tracking import Followed, FollowingState

LAG_COUNT_LIMIT: Final = 100_000

# Counted up to a limit: beyond it, the distance between the positions is precise enough.
PROJECTIONS = """
SELECT tracking.*,
    CASE
        WHEN behind.count < %(lag_limit)s THEN behind.count
        ELSE %(last)s - tracking.position
    END AS lag_events,
    coalesce(
        greatest(extract(epoch FROM clock_timestamp() - oldest.recorded_at)::float8, 0), 0
    ) AS lag_s
FROM projection_tracking AS tracking
CROSS JOIN LATERAL (
    SELECT count(*) AS count
    FROM (
        SELECT
        FROM journal_events
        WHERE notification_id > tracking.position
        LIMIT %(lag_limit)s
    ) AS unread
) AS behind
LEFT JOIN LATERAL (
    SELECT recorded_at
    FROM journal_events
    WHERE notification_id > tracking.position
    ORDER BY notification_id
    LIMIT 1
) AS oldest ON true
ORDER BY tracking.projection
"""


class ProjectionState(StrEnum):
    """How this program treats a projection's rows when it follows the log.

    It follows them; it stopped at an event; a rebuild prepares others, and these serve until then;
    it leaves them alone, because another fold made them, or because it does not know the
    projection.
    """

    FOLLOWING = "following"
    STOPPED = "stopped"
    REBUILDING = "rebuilding"
    OUTDATED = "outdated"
    NOT_OF_THIS_PROGRAM = "not_of_this_program"


class ProjectionStatus(Struct, frozen=True, kw_only=True):
    """How far one projection has followed the log. `version` and `fold_hash` are those of the fold
    that made its rows. `error` is the reason why it stopped, and `do` the remedy where it is
    outdated.

    `lag_events` is the number of events above its position, counted up to 100,000 and then
    estimated from the positions; `lag_s` is the age in seconds of the first of them, 0 if there is
    none. The rows of an inline projection are written with the events, whatever its position is.
    """

    name: str
    version: int
    fold_hash: str
    position: int
    state: ProjectionState
    error: str | None
    do: str | None
    lag_events: int
    lag_s: float
    is_inline: bool
    rebuild: UnfinishedRebuild | None


def projection_status(
    cursor: Cursor[DictRow], projections: Sequence[Projection[Any]], *, schema: str, last: int
) -> list[ProjectionStatus]:
    """All projections that the journal knows, in order of name; `last` is the log's end."""
    known = {projection.name: projection for projection in projections}
    limits = {"lag_limit": LAG_COUNT_LIMIT, "last": last}
    rebuilds = unfinished_rebuilds(cursor, schema, known)
    rows = cursor.execute(PROJECTIONS.encode(), limits).fetchall()
    return [
        _status(row, known.get(row["projection"]), rebuilds.get(row["projection"])) for row in rows
    ]


def _status(
    row: DictRow, projection: Projection[Any] | None, rebuild: UnfinishedRebuild | None
) -> ProjectionStatus:
    place = msgspec.convert(row, Followed)
    state = _state(place, projection, rebuild)
    return ProjectionStatus(
        name=place.projection,
        version=place.fold_version,
        fold_hash=place.fold_hash,
        position=place.position,
        state=state,
        error=place.error,
        do=outdated(place, projection).do
        if projection and state is ProjectionState.OUTDATED
        else None,
        lag_events=row["lag_events"],
        lag_s=row["lag_s"],
        is_inline=projection is not None and projection.is_inline,
        rebuild=rebuild,
    )


def _state(
    place: Followed, projection: Projection[Any] | None, rebuild: UnfinishedRebuild | None
) -> ProjectionState:
    if projection is None:
        return ProjectionState.NOT_OF_THIS_PROGRAM
    if rebuild and rebuild.is_at_work:
        return ProjectionState.REBUILDING
    if not place.is_of(projection):
        return ProjectionState.OUTDATED
    if place.state is FollowingState.STOPPED:
        return ProjectionState.STOPPED
    return ProjectionState.FOLLOWING
