"""Queries of users on projections, and the results of attempts."""

from datetime import datetime

from recovery_journal.domain.errors import ResultPruned, UnknownAttempt, WrongStage
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import (
    DISPATCH_READY,
    DispatchReady,
    DispatchReadyRow,
)
from recovery_journal.projections.recovery_context_row import RecoveryContextRow
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS, RecoveryContexts
from recovery_journal.read_models.tables.read_errors import translating_read_errors
from recovery_journal.read_models.tables.row_form import RowForm
from recovery_journal.values.payload import Value, Values

ACTIVE = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    SELECT *
    FROM projection_dispatch_ready
    WHERE left_position IS NULL
        AND (not_before IS NULL OR not_before <= clock_timestamp())
        AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
        AND (%(tenants)s::text[] IS NULL OR tenant = ANY(%(tenants)s))
    ORDER BY priority DESC, ready_at, attempt_id
    LIMIT %(limit)s
) AS page
"""

RECOVERIES = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    SELECT *
    FROM projection_recovery_contexts
    WHERE (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
        AND (%(attempt_id)s::text IS NULL OR attempt_id = %(attempt_id)s)
        AND (%(worker_id)s::text IS NULL OR worker_id = %(worker_id)s)
        AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
        AND (%(since)s::timestamptz IS NULL OR lost_at >= %(since)s)
    ORDER BY lost_at DESC NULLS LAST, attempt_id, recovery_no DESC
    LIMIT %(limit)s
) AS page
"""

RESULT = "SELECT status, result, result_digest FROM leases WHERE attempt_id = %(attempt_id)s"


class Reading:
    """Queries on the projections' tables, and the results of attempts."""

    def __init__(self, database: Database, values: Values) -> None:
        self._database = database
        self._values = values
        self._listed = RowForm(DispatchReady.row_type)
        self._contexts = RowForm(RecoveryContexts.row_type)

    def dispatch_ready(
        self, *, limit: int, kinds: list[str] | None, tenants: list[str] | None
    ) -> list[DispatchReadyRow]:
        """The active list, in dispatch order."""
        wanted = {"limit": limit, "kinds": kinds, "tenants": tenants}
        with translating_read_errors(DISPATCH_READY), self._database.cursor() as cursor:
            row = cursor.execute(ACTIVE, wanted).fetchone()
            assert row is not None
            return self._listed.from_json(row["rows"])

    def contexts(
        self,
        *,
        run_id: str | None,
        attempt_id: str | None,
        worker_id: str | None,
        tenant: str | None,
        since: datetime | None,
        limit: int,
    ) -> list[RecoveryContextRow]:
        """Recoveries, the newest loss first."""
        wanted = {
            "run_id": run_id,
            "attempt_id": attempt_id,
            "worker_id": worker_id,
            "tenant": tenant,
            "since": since,
            "limit": limit,
        }
        with translating_read_errors(RECOVERY_CONTEXTS), self._database.cursor() as cursor:
            row = cursor.execute(RECOVERIES, wanted).fetchone()
            assert row is not None
            return self._contexts.from_json(row["rows"])

    def result(self, attempt_id: str) -> Value:
        """The result of an attempt. Raises `UnknownAttempt`, `WrongStage`, `ResultPruned`, and as
        `Values.decode`."""
        with self._database.cursor() as cursor:
            row = cursor.execute(RESULT, {"attempt_id": attempt_id}).fetchone()
        if row is None:
            raise UnknownAttempt(attempt_id)
        if row["result_digest"] is None:
            raise WrongStage(
                attempt_id,
                wanted="read the result",
                found=row["status"],
                needed=[LeaseStatus.COMPLETED.value],
                do="wait until it is completed",
            )
        if row["result"] is None:
            raise ResultPruned(attempt_id, digest=row["result_digest"])
        what = f"the result of attempt {attempt_id!r}"
        return self._values.decode(row["result"], digest=row["result_digest"], what=what)
