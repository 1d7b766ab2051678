"""The commands that requeue a claimed attempt, because the claimer cannot load it.

A lack of the claimer's process is little evidence against the run - another machine may have the
memory, the time or the code - so no claimer quarantines for it at once. It is no progress either,
so it counts as one of the recoveries in a row without progress.
"""

from datetime import datetime

from recovery_journal.domain.commands.pipeline import expire
from recovery_journal.domain.commands.quarantine import quarantine
from recovery_journal.domain.commands.retry import await_codec, await_reader, fail_step
from recovery_journal.domain.events import AnyEvent, QuarantineCause
from recovery_journal.domain.lease import Fence, LeaseView, LossReason
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Decision, Recovery, fold


def requeue(
    recovery: Recovery,
    decision: Decision,
    step: RecoveryStep,
    *,
    lease: LeaseView,
    fence: Fence,
    error_class: str,
    message: str,
    policy: Policy,
    now: datetime,
    is_tried: bool = True,
) -> tuple[AnyEvent, ...]:
    """Requeue after the claimer failed at this step: a sweeper retries it, with back-off. Where the
    step was not even tried, the failure does not count."""
    loss = LossReason.REPORTED if is_tried else LossReason.HANDED_BACK
    lost = expire(recovery, decision, lease=lease, loss=loss, fence=fence)
    after = fold(recovery, lost)
    if not lost:
        return ()
    if is_tried and after.recoveries_without_progress >= policy.raise_limit:
        cause = QuarantineCause.RAISED
        return (*lost, *quarantine(after, decision, cause, error_class, message=message))
    failed = fail_step(
        after,
        decision,
        step,
        error_class=error_class,
        message=message,
        policy=policy,
        now=now,
        try_count=after.recoveries_without_progress,
    )
    return (*lost, *failed)


def requeue_for_reader(
    recovery: Recovery,
    decision: Decision,
    *,
    lease: LeaseView,
    fence: Fence,
    message: str,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Requeue an attempt whose checkpoint a newer program wrote and an older claimer received, as
    during a rolling deployment: that is no failure, so only the wait for a reader counts."""
    lost = expire(recovery, decision, lease=lease, loss=LossReason.HANDED_BACK, fence=fence)
    after = fold(recovery, lost)
    if not lost:
        return ()
    failed = await_reader(
        after,
        decision,
        RecoveryStep.CHECKPOINT_RELOAD,
        message=message,
        policy=policy,
        now=now,
        try_count=after.recovery_no,
    )
    return (*lost, *failed)


def requeue_for_codec(
    recovery: Recovery,
    decision: Decision,
    *,
    lease: LeaseView,
    fence: Fence,
    message: str,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Requeue an attempt whose values need a codec that the claimer lacks, for a claimer that has
    it; the loss counts against nothing."""
    lost = expire(recovery, decision, lease=lease, loss=LossReason.HANDED_BACK, fence=fence)
    if not lost:
        return ()
    after, step = fold(recovery, lost), RecoveryStep.CHECKPOINT_RELOAD
    failed = await_codec(after, decision, step, message=message, policy=policy, now=now)
    return (*lost, *failed)
