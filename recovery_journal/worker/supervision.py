"""Supervises one attempt: the function in a child, heartbeats beside it, and the end of both."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from recovery_journal.domain.errors import LeaseLost, RecoveryJournalError, Retry
from recovery_journal.domain.lease import LossReason
from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.worker.child import Child
from recovery_journal.worker.keeper import Cause, Keeper
from recovery_journal.worker.outcome import Notice, NoticeKind, NoticeObserver, Outcome
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.work import Function, ending_of, work

if TYPE_CHECKING:
    from recovery_journal.claiming.loading import Claim
    from recovery_journal.journal import Journal
    from recovery_journal.store.lease import Lease

TICK_S: Final = 0.05
GIVE_UP_PAUSE_S: Final = 0.25


SURRENDERS: Final = {
    # It died by itself: that counts as a crash, and the sweeper need not wait for the TTL.
    Cause.GONE: (LossReason.REPORTED, Outcome.DIED, ""),
    # It lives and makes no progress: that counts too.
    Cause.STALLED: (LossReason.STALLED, Outcome.STALLED, "no progress"),
    # The server was away in the middle. That counts, because otherwise a function that always fails
    # like this would run for ever.
    Cause.INTERRUPTED: (LossReason.REPORTED, Outcome.INTERRUPTED, "a write had no answer"),
    # The server or this host was away, which is no fault of the run. Mostly the write is refused,
    # and the refusal recorded.
    Cause.RUN_OUT: (LossReason.HANDED_BACK, Outcome.FENCED, "no heartbeat acknowledged for a TTL"),
    # The worker stops, and the run has done nothing wrong.
    Cause.DRAINED: (LossReason.HANDED_BACK, Outcome.HANDED_BACK, "the worker drains"),
    # This host has no process left for it; another may.
    Cause.UNSTARTED: (LossReason.HANDED_BACK, Outcome.UNSTARTED, "no child could be started"),
}
"""By cause: the evidence with which a lease is given up, the outcome, and the reason; a lost lease
cannot be given up."""


class Supervision:
    """Runs claims one after another in child processes, for one worker."""

    def __init__(
        self,
        journal: Journal,
        *,
        worker_id: str,
        session_lock: SessionLock,
        stalled_after_s: float | None,
        drain_s: float,
        stop: threading.Event,
        on_event: NoticeObserver,
    ) -> None:
        self._journal = journal
        self._worker_id = worker_id
        self._session_lock = session_lock
        self._stalled_after_s = stalled_after_s
        self._drain_s = drain_s
        self._stop = stop
        self._on_event = on_event

    def run(self, claim: Claim, function: Function) -> Outcome:
        """Run the function on the claim, and return once its child is gone."""
        lease = claim.lease
        outcome = self._start(claim, function)
        self._notify(NoticeKind.ENDED, lease, outcome.value.replace("_", " "), outcome)
        return outcome

    def _start(self, claim: Claim, function: Function) -> Outcome:
        keeper = Keeper(claim.lease, self._session_lock, stalled_after_s=self._stalled_after_s)
        # Loading may have taken long, and the first heartbeat declares the present lock.
        self._session_lock.is_lost()
        try:
            # Fixes the time from which a TTL counts, and confirms that the lease still holds after
            # the loading.
            keeper.renew()
        except (LeaseLost, Retry) as error:
            self._report(claim.lease, error)
            return Outcome.LOST if isinstance(error, LeaseLost) else Outcome.UNSTARTED
        if self._stop.is_set():
            return self._give_up(claim.lease, Cause.DRAINED, keeper.deadline)
        try:
            child = Child(lambda: work(function, claim), deadline=keeper.deadline)
        except OSError as error:
            self._report(claim.lease, error)
            return self._give_up(claim.lease, Cause.UNSTARTED, keeper.deadline)
        return self._run(claim.lease, child, keeper)

    def _run(self, lease: Lease, child: Child, keeper: Keeper) -> Outcome:
        try:
            self._notify(NoticeKind.STARTED, lease, f"child {child.pid} works")
            keeper.start(child.extend)
            cause = self._watch(child, keeper, lease)
            child.kill()
            keeper.stop()
            self._report_all(keeper, lease)
            return self._settle(lease, cause, child, keeper.deadline)
        finally:
            child.kill()
            keeper.stop()
            child.close()

    def _watch(self, child: Child, keeper: Keeper, lease: Lease) -> Cause:
        """Wait until the child is gone, or has to be killed."""
        drained_at: float | None = None
        while True:
            is_done = child.is_done_within(TICK_S)
            # Checked first: this process may have been suspended for longer than the lease held.
            if keeper.has_run_out:
                return Cause.RUN_OUT
            if is_done:
                keeper.stop()  # a heartbeat now would be refused, and the refusal recorded
                child.extend(elapsed_s() + self._drain_s)
                child.is_gone_within(self._drain_s)
                return Cause.GONE
            self._report_all(keeper, lease)
            if keeper.verdict is Cause.STALLED:
                return Cause.STALLED
            if keeper.verdict is Cause.LOST:
                if self._ending(lease):  # by the child itself, which may clean up after that
                    child.is_gone_within(self._drain_s)
                return Cause.LOST
            if self._stop.is_set() and drained_at is None:
                drained_at = elapsed_s() + self._drain_s
                child.drain()
                self._notify(
                    NoticeKind.DRAINING, lease, f"the child has {self._drain_s:g} s to end"
                )
            if drained_at is not None and elapsed_s() >= drained_at:
                return Cause.DRAINED

    def _settle(self, lease: Lease, cause: Cause, child: Child, deadline: float) -> Outcome:
        """The attempt's outcome: from the child's result, else from the log, else from the
        cause."""
        result = child.result()
        if result is None and cause is not Cause.LOST:
            return self._give_up(lease, cause, deadline, child.death)
        if result is not None and result.error_class:
            self._notify(NoticeKind.PROBLEM, lease, f"{result.error_class}: {result.message}")
        if result is None or result.outcome is Outcome.LOST:
            return self._ending(lease) or Outcome.LOST
        if result.outcome is Outcome.FENCED:
            return self._give_up(lease, Cause.RUN_OUT, deadline, "its guardian's clock")
        if result.outcome is Outcome.INTERRUPTED:
            cause = Cause.DRAINED if self._stop.is_set() else Cause.INTERRUPTED
            return self._give_up(lease, cause, deadline, result.error_class)
        return result.outcome

    def _give_up(self, lease: Lease, cause: Cause, deadline: float, detail: str = "") -> Outcome:
        """Report at once that the lease is lost. Where the server cannot be reached, the TTL ends
        the lease."""
        loss, outcome, why = SURRENDERS[cause]
        reason = ": ".join(part for part in (why, detail) if part)
        is_again = False
        while not (is_again and self._is_given_up(lease)):
            try:
                lease.give_up(loss, reason)
                break
            except LeaseLost as error:
                self._report(lease, error)
                return self._ending(lease) or Outcome.LOST
            except RecoveryJournalError as error:
                self._report(lease, error)
                if not isinstance(error, Retry) or elapsed_s() >= deadline or self._stop.is_set():
                    return outcome
            is_again = True
            time.sleep(GIVE_UP_PAUSE_S)
        self._notify(NoticeKind.PROBLEM, lease, reason)
        return outcome

    def _is_given_up(self, lease: Lease) -> bool:
        """Whether a give-up without an answer was recorded."""
        try:
            lost = self._journal.recovery(lease.attempt_id).lost
        except RecoveryJournalError:  # the next try decides
            return False
        return lost is not None and lost.lease.fence == lease.fence

    def _ending(self, lease: Lease) -> Outcome | None:
        try:
            return ending_of(lease)
        except RecoveryJournalError as error:
            self._report(lease, error)
            return None

    def _report_all(self, keeper: Keeper, lease: Lease) -> None:
        for problem in (*keeper.problems(), *self._session_lock.problems()):
            self._notify(NoticeKind.PROBLEM, lease, problem)

    def _report(self, lease: Lease, error: Exception) -> None:
        self._notify(NoticeKind.PROBLEM, lease, f"{type(error).__name__}: {error}")

    def _notify(
        self, kind: NoticeKind, lease: Lease, text: str, outcome: Outcome | None = None
    ) -> None:
        self._on_event(
            Notice(
                kind=kind,
                worker_id=self._worker_id,
                text=text,
                attempt_id=lease.attempt_id,
                outcome=outcome,
            )
        )
