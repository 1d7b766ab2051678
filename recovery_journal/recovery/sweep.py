"""One sweep: every lost attempt is taken back and driven through the pipeline."""

from collections.abc import Iterator, Sequence
from itertools import chain

from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import RECOVERING, Recovery
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.loss import Cohort, Losses
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
        observer: StepObserver,
    ) -> None:
        self._losses = losses
        self._cohorts = cohorts
        self._session_watch = session_watch
        self._observer = observer

    def sweep(self, *, attempt_ids: Sequence[str] | None = None) -> list[SweepResult]:
        """Take lost attempts, in cohorts, until none is left; return one result per attempt.

        With `attempt_ids`, only the losses among these.
        """
        swept: list[SweepResult] = []
        for taken in chain.from_iterable(self._due(attempt_ids)):
            recovering: list[Recovery] = []
            for attempt_id, answer in taken.items():
                if not isinstance(answer, Recovery):
                    swept.append(SweepResult(attempt_id=attempt_id, error=str(answer)))
                elif answer.stage in RECOVERING:
                    recovering.append(answer)
                else:
                    swept.append(SweepResult.of(answer))
            swept += self._cohorts.drive(recovering)
        return swept

    def advance(self, recovery: Recovery) -> SweepResult:
        """Take one attempt, whose lease this process owns, to the end of the pipeline."""
        return self._cohorts.drive([recovery])[0]

    def _due(self, attempt_ids: Sequence[str] | None) -> Iterator[Iterator[Cohort]]:
        """Each kind of loss there is, in cohorts. It is exhausted before the next kind begins."""
        losses = self._losses
        if attempt_ids is None:
            self._session_watch.poll()
            found = losses.find()
            if found.has_overdue:
                yield losses.end_overdue()
            if found.has_orphaned:
                yield losses.take_orphaned()
            if found.has_missed:
                yield losses.quarantine_missed()
            if not found.has_lost:
                return
        is_fleet_wide = attempt_ids is None and losses.is_fleet_wide()
        yield map(self._expired, losses.take_lost(attempt_ids, is_fleet_wide=is_fleet_wide))

    def _expired(self, taken: Cohort) -> Cohort:
        if taken:
            step = StepTaken(step=RecoveryStep.LEASE_EXPIRED, attempt_ids=tuple(taken))
            self._observer(step)
        return taken
