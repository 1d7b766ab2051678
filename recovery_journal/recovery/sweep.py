"""One sweep: every lost attempt is taken back and driven through the pipeline."""

from collections.abc import Callable, Sequence
from functools import partial

from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import RECOVERING, Recovery
from recovery_journal.limits import Limits
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.loss import Losses
from recovery_journal.recovery.session_watch import SessionWatch
from recovery_journal.recovery.sweep_result import StepObserver, StepTaken, SweepResult
from recovery_journal.store.ledger import Answer


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
        losses, swept = self._losses, list[SweepResult]()
        if attempt_ids is None:
            self._session_watch.poll()
            found = losses.find()
            if found.has_overdue:
                swept += self._recover_all(losses.end_overdue)
            if found.has_orphaned:
                swept += self._recover_all(losses.take_orphaned)
            if found.has_missed:
                swept += self._recover_all(losses.quarantine_missed)
            if not found.has_lost:
                return swept
        is_fleet_wide = attempt_ids is None and losses.is_fleet_wide()
        take_lost = partial(losses.take_lost, attempt_ids=attempt_ids, is_fleet_wide=is_fleet_wide)
        return swept + self._recover_all(take_lost, is_expiry=True)

    def advance(self, recovery: Recovery) -> SweepResult:
        """Take one attempt, whose lease this process owns, to the end of the pipeline."""
        return self._cohorts.drive([recovery])[0]

    def _recover_all(
        self, take: Callable[[str], dict[str, Answer]], *, is_expiry: bool = False
    ) -> list[SweepResult]:
        """Take cohort after cohort, each after the one before, and drive it, until a cohort that
        started from the first lease is not full."""
        swept: list[SweepResult] = []
        after = ""
        while True:
            taken = take(after)
            if taken and is_expiry:
                step = StepTaken(step=RecoveryStep.LEASE_EXPIRED, attempt_ids=tuple(taken))
                self._observer(step)
            recovering: list[Recovery] = []
            for attempt_id, answer in taken.items():
                if not isinstance(answer, Recovery):
                    swept.append(SweepResult(attempt_id=attempt_id, error=str(answer)))
                elif answer.stage in RECOVERING:
                    recovering.append(answer)
                else:
                    swept.append(SweepResult.of(answer))
            swept += self._cohorts.drive(recovering)
            is_full = len(taken) == self._limits.cohort_size
            if not is_full and not after:
                return swept
            after = max(taken) if is_full else ""
