"""Queries of users on projections, and the results of attempts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg.sql import SQL

from recovery_journal.domain.errors import ResultPruned, UnknownAttempt, WrongStage
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.projections.projection import PrimaryKey, Projection, RowT
from recovery_journal.projections.recovery_context_row import RecoveryContextRow
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.read_models.as_of import DISPATCHABLE_NOW, ListReading
from recovery_journal.read_models.tables.projection_table import PAGE_ROWS, as_json, table_of
from recovery_journal.read_models.tables.row_errors import translating_read_errors
from recovery_journal.values.payload import Value, Values

RECOVERIES: Final = """
SELECT *
FROM projection_recovery_contexts
WHERE (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
    AND (%(attempt_id)s::text IS NULL OR attempt_id = %(attempt_id)s)
    AND (%(worker_id)s::text IS NULL OR worker_id = %(worker_id)s)
    AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    AND (%(since)s::timestamptz IS NULL OR lost_at >= %(since)s)
ORDER BY lost_at DESC NULLS LAST, attempt_id, recovery_no DESC
LIMIT %(limit)s
"""

RESULT: Final = """
SELECT status, result, result_digest
FROM leases
WHERE attempt_id = %(attempt_id)s
"""


class Reading(ListReading):
    """Queries on the projections' tables, and the results of attempts."""

    def __init__(self, database: Database, values: Values) -> None:
        super().__init__(database)
        self._values = values

    def dispatch_ready(
        self,
        *,
        limit: int,
        kinds: Sequence[str] | None,
        tenants: Sequence[str] | None,
        position: int | None,
    ) -> list[DispatchReadyRow]:
        """The list in dispatch order: now, without attempts that must not start yet, or all that
        was on it at a position."""
        return self.listed(
            DISPATCH_READY,
            position=position,
            limit=limit,
            only={"kind": kinds, "tenant": tenants},
            entries_now=DISPATCHABLE_NOW,
        )

    def contexts(self, wanted: Mapping[str, Any]) -> list[RecoveryContextRow]:
        """Recoveries, the newest loss first. `wanted` has the parameters of `RECOVERIES`; None is
        no filter."""
        with translating_read_errors(RECOVERY_CONTEXTS), self._database.cursor() as cursor:
            return table_of(RECOVERY_CONTEXTS).fetch(cursor, as_json(SQL(RECOVERIES)), wanted)

    def rows(self, projection: Projection[RowT], key: str | None) -> Iterator[RowT]:
        """All rows, or those of one key, in order of the primary key, page by page; no connection
        is held between pages. Raises `RowsUnreadable`."""
        table = table_of(projection)
        after: PrimaryKey | None = None
        while True:
            with translating_read_errors(projection), self._database.cursor() as cursor:
                page = table.page(cursor, after=after, key=key)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = projection.primary_key(page[-1])

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
                needed=LeaseStatus.COMPLETED.value,
                do="wait until it is completed",
            )
        if row["result"] is None:
            raise ResultPruned(attempt_id, digest=row["result_digest"])
        what = f"the result of attempt {attempt_id!r}"
        return self._values.decode(row["result"], digest=row["result_digest"], what=what)
