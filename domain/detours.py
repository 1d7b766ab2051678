"""What may come between the steps: a seizure, a step that fails, a recovery that is abandoned."""

from datetime import datetime

from domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    Seized,
    SeizeReason,
    StepFailed,
)
from domain.lease import Fence, LeaseView
from domain.pipeline import RecoveryStep
from domain.policy import Policy
from domain.recovery import RECOVERING, Decision, Recovery, Stage


def seize(
    recovery: Recovery, decision: Decision, *, fence: Fence, why: SeizeReason
) -> tuple[AnyEvent, ...]:
    """Fence a foreign lease, or take a recovery over; the pipeline goes on where it stood."""
    if recovery.fence == fence:
        return ()
    recovery.require("seize the lease", *RECOVERING)
    recovery.require_newer("seize the lease", fence)
    event = recovery.event(
        Seized,
        decision,
        recovery_no=recovery.recovery_no,
        why=why,
        fence=fence,
        from_fence=recovery.fence,
    )
    return (event,)


def fail_step(
    recovery: Recovery,
    decision: Decision,
    step: RecoveryStep,
    *,
    error_class: str,
    message: str,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """A step could not be taken now; it is tried again with growing waits."""
    recovery.require(f"note a failed {step.value}", *RECOVERING)
    event = recovery.event(
        StepFailed,
        decision,
        recovery_no=recovery.recovery_no,
        failed_step=step,
        error_class=error_class,
        message=message,
        try_count=recovery.try_count + 1,
        retry_at=policy.retry_at(now, recovery.try_count + 1),
    )
    return (event,)


def abandon(
    recovery: Recovery, decision: Decision, why: AbandonReason, *, lease: LeaseView | None = None
) -> tuple[AnyEvent, ...]:
    """Stop this recovery without handing the attempt on. Once fenced, no lease is given back."""
    if _is_abandoned(recovery, why):
        return ()
    recovery.require("abandon the recovery", *RECOVERING, Stage.READY)
    if why is AbandonReason.RENEWED_LATE and recovery.is_fenced:
        lost = recovery.lost.lease if recovery.lost else recovery.granted
        raise recovery.lease_lost("keep the lease", lost.fence)
    event = recovery.event(
        Abandoned,
        decision,
        recovery_no=recovery.recovery_no,
        why=why,
        fence=lease.fence if lease else recovery.fence,
        lease=lease,
    )
    return (event,)


def _is_abandoned(recovery: Recovery, why: AbandonReason) -> bool:
    if why is AbandonReason.RENEWED_LATE:
        return recovery.stage is Stage.HELD and not recovery.is_fenced
    return isinstance(recovery.ended, Abandoned) and recovery.ended.why is why
