"""The commands that postpone a step: after a failure, or until a program that can read comes."""

from datetime import datetime

from recovery_journal.domain.commands.quarantine import quarantine
from recovery_journal.domain.events import CODEC_MISSING, AnyEvent, QuarantineCause, StepFailed
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery


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
    recovery.require(f"record a failed {step.value}", *RECOVERING)
    tried = try_count or recovery.try_count + 1
    return recovery.emit(
        StepFailed,
        decision,
        failed_step=step,
        error_class=error_class,
        message=message,
        try_count=tried,
        retry_at=policy.retry_at(now, tried),
        waits_since=waits_since,
    )


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
    if policy.has_waited(since, now):
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
    if policy.has_waited(since, now):
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
