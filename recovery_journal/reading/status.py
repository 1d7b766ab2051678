"""How the journal fares, in one look: what waits, what fails, how far readers are behind."""

import time
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from domain.lease import LeaseStatus
from domain.recovery import Stage
from projections.catalog import BUILT_IN
from recovery_journal.following.tracking import FollowingState
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database

KindT = TypeVar("KindT", bound=StrEnum)

SETTLING_S: Final = 0.25
PAUSE_S: Final = 0.01
LAG_COUNT_LIMIT: Final = 100_000
FAILING_LIMIT: Final = 20

# One snapshot for all that follows, so that the numbers fit together.
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

SERVER = """
SELECT current_setting('server_version') AS version,
    pg_postmaster_start_time() AS started_at,
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime_s,
    clock_timestamp() AS now
"""

STATUSES = "SELECT status, count(*) AS count FROM leases GROUP BY status"

STAGES = """
SELECT coalesce(contexts.stage, 'expired') AS stage, count(*) AS count
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.status = 'recovering'
GROUP BY 1
"""

WAITING = """
SELECT count(*) AS count,
    count(*) FILTER (WHERE not_before > clock_timestamp()) AS deferred_count,
    min(ready_at) AS oldest_ready_at,
    (array_agg(attempt_id ORDER BY ready_at, attempt_id))[1] AS oldest_attempt_id,
    coalesce(extract(epoch FROM clock_timestamp() - min(ready_at))::float8, 0) AS oldest_age_s
FROM projection_dispatch_ready
WHERE left_position IS NULL
"""

# Counted up to a limit: beyond it, how far the positions are apart is close enough.
PROJECTIONS = """
SELECT tracking.projection AS name,
    tracking.fold_version AS version,
    tracking.position,
    tracking.state,
    tracking.error,
    CASE
        WHEN behind.count < %(lag_limit)s THEN behind.count
        ELSE %(last)s - tracking.position
    END AS lag_events,
    greatest(extract(epoch FROM clock_timestamp() - oldest.recorded_at)::float8, 0) AS lag_s
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

LAST_POSITION = "SELECT coalesce(max(notification_id), 0) AS position FROM journal_events"

REFUSED_WRITES = """
SELECT coalesce(sum(refused_write_count), 0)::bigint AS count,
    max(last_refused_at) AS newest_at,
    (array_agg(worker_id ORDER BY last_refused_at DESC NULLS LAST))[1] AS newest_worker_id
FROM projection_workers
WHERE refused_write_count > 0
"""

# What waits for a retry: a failed step, or a stream that could not be read when it was due.
FAILING = """
SELECT leases.attempt_id,
    leases.run_id,
    leases.recovery_no,
    leases.retry_at,
    contexts.stage,
    coalesce(contexts.failed_step_count, 0) AS failed_step_count,
    CASE WHEN contexts.retry_at IS NOT NULL THEN contexts.last_error END AS error,
    count(*) OVER () AS total
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.status IN ('held', 'recovering')
    AND leases.retry_at IS NOT NULL
ORDER BY leases.retry_at, leases.attempt_id
LIMIT %(limit)s
"""

QUARANTINED = """
SELECT coalesce(contexts.quarantine_cause, 'not yet known') AS cause, count(*) AS count
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.status = 'quarantined'
GROUP BY 1
ORDER BY 2 DESC, 1
"""


class ServerStatus(Struct, frozen=True, kw_only=True):
    """The PostgreSQL server, and its clock at the time of the look."""

    address: str
    schema: str
    version: str
    started_at: datetime
    uptime_s: float
    now: datetime


class WaitingStatus(Struct, frozen=True, kw_only=True):
    """The dispatch-ready list. `deferred_count` of them must not start yet."""

    count: int
    deferred_count: int
    oldest_attempt_id: str | None
    oldest_ready_at: datetime | None
    oldest_age_s: float


class ProjectionStatus(Struct, frozen=True, kw_only=True):
    """How far one projection has followed the log.

    `lag_events` are those above its position, counted up to 100,000 and then estimated from the
    positions; `lag_s` is how long ago the first of them was recorded, 0 if there is none. The
    rows of an inline one are written with the events, whatever its position is.
    """

    name: str
    version: int
    position: int
    state: FollowingState
    error: str | None
    lag_events: int
    lag_s: float
    is_inline: bool


class RefusedStatus(Struct, frozen=True, kw_only=True):
    """Stale writes refused, as far as the workers projection has followed the log."""

    count: int
    newest_at: datetime | None
    newest_worker_id: str | None


class FailingRecovery(Struct, frozen=True, kw_only=True):
    """A recovery of which a step failed and is tried again at `retry_at`.

    Without an `error` the attempt's stream could not be read, or the failure is not folded yet.
    """

    attempt_id: str
    run_id: str
    recovery_no: int
    stage: Stage | None
    failed_step_count: int
    error: str | None
    retry_at: datetime


class Status(Struct, frozen=True, kw_only=True):
    """How the journal fares. Counts by stage and cause come from followed projections; those by
    lease status, the list and the failing recoveries are exact.

    `failing` holds the first 20 that are due, of `failing_count`.
    """

    server: ServerStatus
    leases: dict[LeaseStatus, int]
    recovering: dict[Stage, int]
    waiting: WaitingStatus
    failing: list[FailingRecovery]
    failing_count: int
    quarantined: dict[str, int]
    refused_writes: RefusedStatus
    projections: list[ProjectionStatus]
    settled_position: int
    last_position: int


class StatusReading:
    """Looks at lease rows and projections; of the log, at nothing but its end."""

    def __init__(self, database: Database, reader: SettledReader) -> None:
        self._database = database
        self._reader = reader

    def now(self) -> datetime:
        """The database's clock."""
        with self._database.cursor() as cursor:
            now: datetime = _one(cursor, SERVER)["now"]
        return now

    def status(self) -> Status:
        """One look. Raises `ServerUnavailable`, `StoreBusy`, `ReadOnlyServer`."""
        settled = self._settled_position()
        with self._database.transaction() as cursor:
            cursor.execute(ONE_SNAPSHOT)
            last: int = _one(cursor, LAST_POSITION)["position"]
            projections = _projections(cursor, last)
            failing = _all(cursor, FAILING, limit=FAILING_LIMIT)
            return Status(
                server=self._server(cursor),
                leases=_counts(cursor, STATUSES, "status", LeaseStatus),
                recovering=_counts(cursor, STAGES, "stage", Stage),
                waiting=msgspec.convert(_one(cursor, WAITING), WaitingStatus),
                failing=msgspec.convert(failing, list[FailingRecovery]),
                failing_count=failing[0]["total"] if failing else 0,
                quarantined={row["cause"]: row["count"] for row in _all(cursor, QUARANTINED)},
                refused_writes=msgspec.convert(_one(cursor, REFUSED_WRITES), RefusedStatus),
                projections=projections,
                # A cold reader may know less than a follower, whose position is settled by
                # construction.
                settled_position=max(settled, *(one.position for one in projections)),
                last_position=last,
            )

    def _settled_position(self) -> int:
        """What is settled, after a moment for the writers of this moment to end: a reader that
        has just begun to look knows little of a busy log."""
        last = self._reader.last_position()
        give_up_at = time.monotonic() + SETTLING_S
        while True:
            settled = self._reader.settled_position()
            if settled >= last or time.monotonic() >= give_up_at:
                return settled
            time.sleep(PAUSE_S)

    def _server(self, cursor: Cursor[DictRow]) -> ServerStatus:
        return ServerStatus(
            address=self._database.server, schema=self._database.schema, **_one(cursor, SERVER)
        )


def _projections(cursor: Cursor[DictRow], last: int) -> list[ProjectionStatus]:
    inline = {projection.name for projection in BUILT_IN if projection.is_inline}
    rows = _all(cursor, PROJECTIONS, lag_limit=LAG_COUNT_LIMIT, last=last)
    return [
        msgspec.convert(
            {**row, "lag_s": row["lag_s"] or 0.0, "is_inline": row["name"] in inline},
            ProjectionStatus,
        )
        for row in rows
    ]


def _counts(
    cursor: Cursor[DictRow], statement: str, by: str, kinds: type[KindT]
) -> dict[KindT, int]:
    """Counts in the order of the kinds."""
    found = {row[by]: row["count"] for row in _all(cursor, statement)}
    return {kind: found[kind.value] for kind in kinds if kind.value in found}


def _one(cursor: Cursor[DictRow], statement: str) -> DictRow:
    row = cursor.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def _all(cursor: Cursor[DictRow], statement: str, **wanted: int) -> list[DictRow]:
    return cursor.execute(statement.encode(), wanted or None).fetchall()
