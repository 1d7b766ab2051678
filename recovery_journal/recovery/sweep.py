"""One sweep: every lost attempt is taken back and driven through the pipeline."""

from collections.abc import Callable, Sequence

from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import RECOVERING, Recovery
from recovery_journal.limits import Limits
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.loss import Losses, TakenLease
from recovery_journal.recovery.session_watch import SessionWatch
from recovery_journal.recovery.sweep_result import StepObserver, StepTaken, SweepResult


class Sweep:
    """Takes attempts past their execution timeout first, then orphaned recoveries, then ready
    attempts whose code version no worker has any more, then leases whose worker's session has
    ended, or which are older than their grace. "Ready" means reloaded and replayed, never
    before."""

    def __init__(
        self,
        losses: Losses,
        cohorts: Cohorts,
        session_watch: SessionWatch,
        limits: Limits,
        observer: StepObserver,
    ) -> None:
        self._losses = losses
        self._cohorts = cohorts
        self._session_watch = session_watch
        self._limits = limits
        self._observer = observer

    def sweep(self, *, attempt_ids: Sequence[str] | None = None) -> list[SweepResult]:
        """Take lost attempts, in cohorts, until none is left; return one result per attempt.

        With `attempt_ids`, only the losses among these.
        """
        swept: list[SweepResult] = []
        if attempt_ids is None:
            self._session_watch.look()
            found = self._losses.look()
            if found.has_overdue:
                swept += self._until_empty(self._losses.end_overdue)
            if found.has_orphaned:
                swept += self._until_empty(self._losses.take_orphaned)
            if found.has_missed:
                swept += self._until_empty(self._losses.give_up_missed)
            if not found.has_lost:
                return swept
        is_fleet_wide = attempt_ids is None and self._losses.is_fleet_wide()

        def take_lost(*, limit: int, after: str) -> dict[str, TakenLease]:
            taken = self._losses.take_lost(
                limit=limit, after=after, attempt_ids=attempt_ids, is_fleet_wide=is_fleet_wide
            )
            if taken:
                step = StepTaken(step=RecoveryStep.LEASE_EXPIRED, attempt_ids=tuple(taken))
                self._observer(step)
            return taken

        return swept + self._until_empty(take_lost)

    def go_on(self, recovery: Recovery) -> SweepResult:
        """Take one attempt, whose lease this process owns, to the end of the pipeline."""
        return self._cohorts.drive([recovery])[0]

    def _until_empty(self, take: Callable[..., dict[str, TakenLease]]) -> list[SweepResult]:
        """Take cohort after cohort, each after the one before, until a cohort that started
        from the first lease is not full."""
        swept: list[SweepResult] = []
        after = ""
        while True:
            taken = take(limit=self._limits.cohort_size, after=after)
            swept += self._drive(taken)
            is_full = len(taken) == self._limits.cohort_size
            if not is_full and not after:
                return swept
            after = max(taken) if is_full else ""

    def _drive(self, taken: dict[str, TakenLease]) -> list[SweepResult]:
        recoveries = [answer for answer in taken.values() if isinstance(answer, Recovery)]
        swept = [
            SweepResult(attempt_id=attempt_id, error=str(answer))
            for attempt_id, answer in taken.items()
            if isinstance(answer, RecoveryJournalError)
        ]
        ended = [recovery for recovery in recoveries if recovery.stage not in RECOVERING]
        swept += [SweepResult.of(recovery) for recovery in ended]
        return swept + self._cohorts.drive(one for one in recoveries if one.stage in RECOVERING)
