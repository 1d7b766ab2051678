"""The commands between the steps: a seizure, a failed step, a wait for another version, an
abandoned recovery."""

from datetime import datetime

from recovery_journal.domain.events import (
    CODEC_MISSING,
    Abandoned,
    AbandonReason,
    AnyEvent,
    QuarantineCause,
    Seized,
    SeizeReason,
    StepFailed,
)
from recovery_journal.domain.lease import Fence, LeaseView
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.quarantine import quarantine
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery, Stage


def seize(
    recovery: Recovery, decision: Decision, *, fence: Fence, why: SeizeReason
) -> tuple[AnyEvent, ...]:
    """Fence a foreign lease, or take a recovery over; the pipeline continues from its present
    step."""
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
    try_count: int | None = None,
    waits_since: datetime | None = None,
) -> tuple[AnyEvent, ...]:
    """Record that a step failed; it is retried with back-off. `try_count` is the number of this
    try, which includes failures before this recovery."""
    recovery.require(f"note a failed {step.value}", *RECOVERING)
    tried = try_count or recovery.try_count + 1
    event = recovery.event(
        StepFailed,
        decision,
        recovery_no=recovery.recovery_no,
        failed_step=step,
        error_class=error_class,
        message=message,
        try_count=tried,
        retry_at=policy.retry_at(now, tried),
        waits_since=waits_since,
    )
    return (event,)


def await_reader(
    recovery: Recovery,
    decision: Decision,
    step: RecoveryStep,
    *,
    message: str,
    policy: Policy,
    now: datetime,
    try_count: int | None = None,
) -> tuple[AnyEvent, ...]:
    """A newer program wrote the checkpoint: wait a while for such a program, then quarantine."""
    since = recovery.waits_since
    if since is not None and policy.has_waited(since, now):
        waited = f"{message}; none came within {policy.version_wait_s:g} s"
        return quarantine(recovery, decision, QuarantineCause.TOO_NEW, waited)
    return fail_step(
        recovery,
        decision,
        step,
        error_class="CheckpointTooNew",
        message=message,
        policy=policy,
        now=now,
        try_count=try_count,
        waits_since=since or now,
    )


def await_codec(
    recovery: Recovery,
    decision: Decision,
    step: RecoveryStep,
    *,
    message: str,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Postpone a step whose stored values need a codec or time zone that this process lacks; after
    a long wait, quarantine. It never counts as a try of the step."""
    since = recovery.undecoded_since
    if since is not None and policy.has_waited(since, now):
        waited = f"{CODEC_MISSING}; none came within {policy.version_wait_s:g} s"
        return quarantine(recovery, decision, QuarantineCause.TOO_NEW, waited, message=message)
    return fail_step(
        recovery,
        decision,
        step,
        error_class=CODEC_MISSING,
        message=message,
        policy=policy,
        now=now,
        try_count=recovery.undecoded_count + 1,
        waits_since=since or now,
    )


def miss_version(recovery: Recovery, decision: Decision, policy: Policy) -> tuple[AnyEvent, ...]:
    """Quarantine: workers of other code versions came during the whole wait, and none of this
    one."""
    found = recovery.quarantined if recovery.stage is Stage.QUARANTINED else None
    if found and found.cause is QuarantineCause.CODE_CHANGED:
        return ()
    recovery.require("give up waiting for its code version", Stage.READY)
    explanation = (
        f"it needs code version {recovery.code_version!r}: for {policy.version_wait_s:g} s only "
        f"workers of other versions have asked for runs of kind {recovery.granted.kind!r}"
    )
    return quarantine(recovery, decision, QuarantineCause.CODE_CHANGED, explanation)


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
