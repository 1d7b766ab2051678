"""Journal health: queue, failing recoveries, projection lag."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.domain.recovery import Stage
from recovery_journal.limits import DEFAULTS, Limits
from recovery_journal.log.reader import SettledReader
from recovery_journal.monitoring.delays import Delay, delays
from recovery_journal.monitoring.projection_status import ProjectionStatus, projection_status
from recovery_journal.monitoring.protections import missing_protections
from recovery_journal.postgres.database import ONE_SNAPSHOT, Database, one
from recovery_journal.postgres.schema_privileges import creators
from recovery_journal.postgres.server_settings import weakened, words_of
from recovery_journal.postgres.session_settings import REQUIRED, Durability, changed_since
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.projection import Projection
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.following.settled_position import SettledPosition
from recovery_journal.read_models.tables.row_errors import translating_read_errors

KindT = TypeVar("KindT", bound=StrEnum)

FAILING_LIMIT: Final = 20

SERVER: Final = """
SELECT current_setting('server_version') AS version,
    pg_postmaster_start_time() AS started_at,
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime_s,
    clock_timestamp() AS now
"""

STATUSES: Final = "SELECT status, count(*) AS count FROM leases GROUP BY status"

STAGES: Final = """
SELECT coalesce(contexts.stage, 'expired') AS stage, count(*) AS count
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.is_watched AND leases.status = 'recovering'
GROUP BY 1
"""

WAITING: Final = """
SELECT count(*) AS count,
    count(*) FILTER (WHERE not_before > clock_timestamp()) AS deferred_count,
    min(ready_at) AS oldest_ready_at,
    (array_agg(attempt_id ORDER BY ready_at, attempt_id))[1] AS oldest_attempt_id,
    coalesce(extract(epoch FROM clock_timestamp() - min(ready_at))::float8, 0) AS oldest_age_s
FROM projection_dispatch_ready
WHERE left_position IS NULL
"""

LAST_POSITION: Final = "SELECT coalesce(max(notification_id), 0) AS position FROM journal_events"

REFUSED_WRITES: Final = """
SELECT coalesce(sum(refused_write_count), 0)::bigint AS count,
    max(last_refused_at) AS newest_at,
    (array_agg(worker_id ORDER BY last_refused_at DESC NULLS LAST))[1] AS newest_worker_id
FROM projection_workers
WHERE refused_write_count > 0
"""

# Attempts that wait for a retry: a failed step, or a stream that could not be read when it was due.
FAILING: Final = """
SELECT leases.attempt_id,
    leases.run_id,
    leases.recovery_no,
    leases.retry_at,
    contexts.stage,
    coalesce(contexts.failed_step_count, 0) AS failed_step_count,
    coalesce(
        (SELECT reason FROM set_aside WHERE set_aside.attempt_id = leases.attempt_id),
        CASE WHEN contexts.retry_at IS NOT NULL THEN contexts.last_error END
    ) AS error,
    count(*) OVER () AS total
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.is_watched AND leases.status IN ('held', 'recovering')
    AND leases.retry_at IS NOT NULL
ORDER BY leases.retry_at, leases.attempt_id
LIMIT %(limit)s
"""

QUARANTINED: Final = """
SELECT coalesce(contexts.quarantine_cause, 'not yet known') AS cause, count(*) AS count
FROM leases
LEFT JOIN projection_recovery_contexts AS contexts USING (attempt_id, recovery_no)
WHERE leases.ended_at IS NULL AND leases.status = 'quarantined'
GROUP BY 1
ORDER BY 2 DESC, 1
"""


class ServerStatus(Struct, frozen=True, kw_only=True):
    """The PostgreSQL server, and its clock when the status was read."""

    address: str
    schema: str
    version: str
    started_at: datetime
    uptime_s: float
    now: datetime
    durability: Durability


class StatusProblem(Struct, frozen=True, kw_only=True):
    """A problem of the server or the schema that breaks a promise of the journal, and the
    remedy."""

    what: str
    do: str


class WaitingStatus(Struct, frozen=True, kw_only=True):
    """The dispatch-ready list. `deferred_count` of them must not start yet."""

    count: int
    deferred_count: int
    oldest_attempt_id: str | None
    oldest_ready_at: datetime | None
    oldest_age_s: float


class RefusedStatus(Struct, frozen=True, kw_only=True):
    """Stale writes refused, as far as the workers projection has followed the log."""

    count: int
    newest_at: datetime | None
    newest_worker_id: str | None


class FailingRecovery(Struct, frozen=True, kw_only=True):
    """A recovery of which a step failed and is retried at `retry_at`.

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
    """Journal health. Counts by stage and cause come from followed projections; those by lease
    status, the list and the failing recoveries are exact.

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
    delays: list[Delay]
    problems: list[StatusProblem]


class StatusReading:
    """Reads lease rows and projections, and of the log only its end."""

    def __init__(
        self,
        database: Database,
        reader: SettledReader,
        projections: Sequence[Projection[Any]] = BUILT_IN,
        limits: Limits = DEFAULTS,
    ) -> None:
        self._database = database
        self._reader = reader
        self._settled = SettledPosition(database, reader)
        self._projections = projections
        self._limits = limits

    def now(self) -> datetime:
        """The database's clock."""
        with self._database.cursor() as cursor:
            now: datetime = one(cursor.execute(SERVER))["now"]
        return now

    def status(self) -> Status:
        """Read the status once. Raises `ServerUnavailable`, `StoreBusy`, `ReadOnlyServer`, and
        `RowsUnreadable` where another fold made rows that it needs."""
        settled = self._settled.reach(self._reader.last_position())
        with self._database.transaction() as cursor:
            cursor.execute(ONE_SNAPSHOT)
            last: int = one(cursor.execute(LAST_POSITION))["position"]
            projections = projection_status(
                cursor, self._projections, schema=self._database.schema, last=last
            )
            with translating_read_errors(DISPATCH_READY):
                waiting = msgspec.convert(one(cursor.execute(WAITING)), WaitingStatus)
            with translating_read_errors(WORKERS):
                refused = msgspec.convert(one(cursor.execute(REFUSED_WRITES)), RefusedStatus)
            with translating_read_errors(RECOVERY_CONTEXTS):
                recovering = _counts(cursor, STAGES, "stage", Stage)
                causes = {
                    row["cause"]: row["count"] for row in cursor.execute(QUARANTINED).fetchall()
                }
                rows = cursor.execute(FAILING, {"limit": FAILING_LIMIT}).fetchall()
                failing = msgspec.convert(rows, list[FailingRecovery])
            server = ServerStatus(
                address=self._database.server,
                schema=self._database.schema,
                durability=self._database.durability,
                **one(cursor.execute(SERVER)),
            )
            delayed = delays(
                cursor, self._limits, projections, settled=settled, last=last, now=server.now
            )
            return Status(
                server=server,
                leases=_counts(cursor, STATUSES, "status", LeaseStatus),
                recovering=recovering,
                waiting=waiting,
                failing=failing,
                failing_count=rows[0]["total"] if rows else 0,
                quarantined=causes,
                refused_writes=refused,
                projections=projections,
                settled_position=settled,
                last_position=last,
                delays=delayed,
                problems=list(self._problems(cursor)),
            )

    def _problems(self, cursor: Cursor[DictRow]) -> Iterator[StatusProblem]:
        for what in missing_protections(cursor):
            do = "find out who changed it and what was written since, then make it as log.sql does"
            yield StatusProblem(what=f"the log is not protected: {what}", do=do)
        if names := creators(cursor, self._database.schema):
            what = f"{names} may create objects in the schema, and so choose what our SQL means"
            yield StatusProblem(what=what, do=f"REVOKE CREATE ON SCHEMA ... FROM {names}")
        for name, found in changed_since(cursor):
            what = f"{name} was set to {found} for sessions that are open, needed {REQUIRED[name]}"
            yield StatusProblem(what=what, do=f"ALTER SYSTEM RESET {name}, and reload")
        for name in weakened(cursor):
            yield StatusProblem(what=words_of(name), do=f"set {name} = on")


def _counts(
    cursor: Cursor[DictRow], statement: str, by: str, kinds: type[KindT]
) -> dict[KindT, int]:
    """Counts in the order of the kinds."""
    found = {row[by]: row["count"] for row in cursor.execute(statement.encode()).fetchall()}
    return {kind: found[kind.value] for kind in kinds if kind.value in found}
