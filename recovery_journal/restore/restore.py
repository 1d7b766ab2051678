"""Accepts another server after a restore or a failover: the only way to continue a journal
there."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import ReadOnlyServer
from recovery_journal.domain.journal_events import RestoreAccepted
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.limits import Limits
from recovery_journal.log import journal_stream
from recovery_journal.log.numbers import Raised, raise_numbers
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.accepted_servers import Comparison, Server, accept, compare
from recovery_journal.postgres.database import WITHOUT_LIMIT, Database
from recovery_journal.process.identity import actor
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.restore.differences import Difference, differences
from recovery_journal.restore.fencing import Fenced, Fencing
from recovery_journal.store.ledger import Ledger

NO_FOLD: Final = "of a lost log"

AHEAD: Final = """
SELECT projection
FROM projection_tracking
WHERE position > (SELECT coalesce(max(notification_id), 0) FROM journal_events)
ORDER BY projection
"""


class Restored(Struct, frozen=True, kw_only=True):
    """The findings and the acts of `after_restore`.

    `is_done`: it was needed, and the server is accepted now. `raised`: the numbers that are
    skipped; none where nothing was lost. `fenced_count` leases were taken from their workers and
    sweepers, and `swept` holds the present stages of these attempts. `projections` had read events
    that are lost, and have to be rebuilt.
    """

    found: Server
    accepted_before: Server | None
    is_done: bool
    raised: Raised | None = None
    fenced_count: int = 0
    differences: tuple[Difference, ...] = ()
    projections: tuple[str, ...] = ()
    swept: tuple[SweepResult, ...] = ()


class Restore:
    """Makes a journal safe on a new server, and accepts that server.

    If it is killed at any point, it has accepted nothing, and is repeated.
    """

    def __init__(
        self, database: Database, ledger: Ledger, cohorts: Cohorts, limits: Limits
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._cohorts = cohorts
        self._fencing = Fencing(database, ledger, limits)
        self._limits = limits

    def inspect(self) -> Restored:
        """The findings alone; nothing is changed."""
        comparison, found = self._compare()
        with self._database.cursor() as cursor:
            ahead = _ahead(cursor)
        return _restored(comparison, is_done=False, differences=found, projections=ahead)

    def run(self, *, by: str, reason: str, is_nothing_lost: bool, is_restored: bool) -> Restored:
        """Fence, raise, accept; then recover what was fenced."""
        comparison, found = self._compare()
        if comparison.is_accepted and not is_restored:
            return _restored(comparison, is_done=False, differences=found)
        if is_nothing_lost:
            with self._database.transaction() as cursor:
                _accept(cursor, comparison.found, by=by, reason=reason)
            return _restored(comparison, is_done=True, differences=found)
        return self._restore(comparison, found, by=by, reason=reason)

    def _restore(
        self, comparison: Comparison, found: tuple[Difference, ...], *, by: str, reason: str
    ) -> Restored:
        decision = Decision(
            event_id=uuid4().hex, by=actor("person", by), reason=f"after a restore: {reason}"
        )
        with self._database.transaction() as cursor:
            projections = _ahead(cursor)
            # Before new events come above lost positions.
            ProjectionTracking(self._database).disown(cursor, projections, NO_FOLD)
            raised = raise_numbers(cursor)
        fenced = self._fence(found, decision)
        recoveries = [one for one in fenced if isinstance(one, Recovery)]
        with self._database.transaction() as cursor:
            schemas.lock(cursor)
            _accept(cursor, comparison.found, found, len(recoveries), raised, by=by, reason=reason)
        swept = [one for one in fenced if isinstance(one, SweepResult)]
        for start in range(0, len(recoveries), self._limits.cohort_size):
            swept += self._cohorts.drive(recoveries[start : start + self._limits.cohort_size])
        return _restored(
            comparison,
            is_done=True,
            raised=raised,
            fenced_count=len(recoveries),
            differences=found,
            projections=projections,
            swept=tuple(swept),
        )

    def _compare(self) -> tuple[Comparison, tuple[Difference, ...]]:
        with self._database.transaction() as cursor:
            cursor.execute(WITHOUT_LIMIT)  # the log may be long, and no other process works
            comparison = compare(cursor)
            if comparison.found.timeline is None:
                raise ReadOnlyServer("accept this server")
            return comparison, differences(cursor)

    def _fence(self, found: Sequence[Difference], decision: Decision) -> list[Fenced]:
        settled = [self._fencing.settle(one, decision) for one in found]
        apart = [one.attempt_id for one in found]
        fenced = self._fencing.fence_owned(decision, without=apart)
        return [one for one in settled if one is not None] + fenced


def _ahead(cursor: Cursor[DictRow]) -> tuple[str, ...]:
    """The projections that have followed a longer log than this one."""
    return tuple(row["projection"] for row in cursor.execute(AHEAD).fetchall())


def _accept(
    cursor: Cursor[DictRow],
    server: Server,
    found: Sequence[Difference] = (),
    fenced_count: int = 0,
    raised: Raised | None = None,
    *,
    by: str,
    reason: str,
) -> None:
    """Accept the server, and record that in the journal's own stream; without `raised` numbers
    nothing was lost."""
    accept(cursor, server, by=by, reason=reason, fenced_count=fenced_count, differences=found)
    journal_stream.append(
        cursor,
        RestoreAccepted,
        by=by,
        reason=reason,
        system_identifier=str(server.system_identifier),
        timeline=server.timeline,
        is_nothing_lost=raised is None,
        fenced_count=fenced_count,
        difference_count=len(found),
        skipped_to_epoch=raised and raised.epochs.skipped_to,
        skipped_to_position=raised and raised.positions.skipped_to,
    )


def _restored(comparison: Comparison, **found: Any) -> Restored:
    return Restored(found=comparison.found, accepted_before=comparison.accepted, **found)
