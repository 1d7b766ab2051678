"""The state of each projection: which fold made its rows, how far they have followed, and why no
further."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.outdated import outdated
from recovery_journal.read_models.following.tracking import Followed, FollowingState
from recovery_journal.read_models.rebuild.rebuild_lock import is_under_way
from recovery_journal.read_models.rebuild.registry import RebuildState, find

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


class Portion(StrEnum):
    """The unit of a rebuild's progress: ranges of streams; or positions, where rows mix streams."""

    RANGES = "ranges"
    POSITIONS = "positions"


class UnfinishedRebuild(Struct, frozen=True, kw_only=True):
    """Rows that a rebuild prepares, by the fold of this version. `done` of `total` are folded.

    Where no process runs it, it was killed or has failed, and `do` is the command to run, and
    whether that resumes it or begins from scratch. Until the switch the old rows serve.
    """

    is_at_work: bool
    version: int
    done: int
    total: int
    portion: Portion
    host: str
    process_id: int
    started_at: datetime
    do: str | None


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
    rebuilds = _unfinished_rebuilds(cursor, schema, known)
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


def _unfinished_rebuilds(
    cursor: Cursor[DictRow], schema: str, known: Mapping[str, Projection[Any]]
) -> dict[str, UnfinishedRebuild]:
    """By name, those of its projections that are not switched yet; `known` are the program's
    own."""
    is_at_work = is_under_way(cursor, schema)
    state = find(cursor)
    if state is None:
        return {}
    found = {}
    for name, version, _ in state.folds:
        if name in state.switched:
            continue
        is_mixed = name in known and not known[name].is_stream_keyed
        done = state.range_count - state.open_range_count
        found[name] = UnfinishedRebuild(
            is_at_work=is_at_work,
            version=version,
            done=state.mixed_event_count if is_mixed else done,
            total=state.position_count if is_mixed else state.range_count,
            portion=Portion.POSITIONS if is_mixed else Portion.RANGES,
            host=state.host,
            process_id=state.process_id,
            started_at=state.started_at,
            do=None if is_at_work else _do(state, known),
        )
    return found


def _do(state: RebuildState, known: Mapping[str, Projection[Any]]) -> str:
    """Only a rebuild of the same projections, by the same folds, resumes it."""
    names = sorted(name for name, _, _ in state.folds)
    projections = [known[name] for name in names if name in known]
    if not state.is_of(projections):
        return "`recovery-journal rebuild` begins from scratch"
    which = "" if len(projections) == len(known) else f" {' '.join(names)}"
    return f"`recovery-journal rebuild{which}` resumes it"
