"""The commands about a lease: grant, dispatch, confirm, refuse a stale write, end, seize."""

from recovery_journal.domain.commands.quarantine import quarantine
from recovery_journal.domain.events import (
    FIRST_VERSION,
    AnyEvent,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseGranted,
    QuarantineCause,
    Seized,
    SeizeReason,
    StaleWriteRefused,
    WriteKind,
)
from recovery_journal.domain.lease import Fence, Holder
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery, Stage


def grant(
    decision: Decision,
    *,
    attempt_id: str,
    run_id: str,
    holder: Holder,
    fence: Fence,
    ttl_s: float,
    kind: str,
    code_version: str,
    attempt_no: int,
    input_digest: str,
    tenant: str,
    priority: int,
    timeout_s: float | None,
) -> LeaseGranted:
    """Open an attempt: the first event of its stream."""
    return LeaseGranted(
        originator_id=attempt_id,
        originator_version=FIRST_VERSION,
        event_id=decision.event_id,
        run_id=run_id,
        recorded_by=decision.by,
        reason=decision.reason,
        trace_id=decision.trace_id,
        holder=holder,
        fence=fence,
        ttl_s=ttl_s,
        kind=kind,
        code_version=code_version,
        attempt_no=attempt_no,
        input_digest=input_digest,
        tenant=tenant,
        priority=priority,
        timeout_s=timeout_s,
    )


def dispatch(
    recovery: Recovery,
    decision: Decision,
    *,
    holder: Holder,
    fence: Fence,
    ttl_s: float,
    dispatch_id: str,
) -> tuple[AnyEvent, ...]:
    """Hand the attempt to the worker whose claim won."""
    if recovery.stage is Stage.HELD and recovery.dispatch_id == dispatch_id:
        return ()
    recovery.require("dispatch the attempt", Stage.READY)
    recovery.require_newer("dispatch the attempt", fence)
    return recovery.emit(
        Dispatched, decision, holder=holder, fence=fence, ttl_s=ttl_s, dispatch_id=dispatch_id
    )


def confirm(
    recovery: Recovery, decision: Decision, write: WriteKind, ordinal: int
) -> tuple[AnyEvent, ...]:
    """Record the holder's first accepted write under its fence."""
    recovery.require("confirm the lease", Stage.HELD)
    if recovery.is_confirmed:
        return ()
    return recovery.emit(Confirmed, decision, fence=recovery.fence, write=write, ordinal=ordinal)


def refuse(
    recovery: Recovery, decision: Decision, write: WriteKind, fence: Fence
) -> tuple[AnyEvent, ...]:
    """Record that a fenced-out worker tried to write: once per fence and operation."""
    if (fence.epoch, write) in recovery.refused or _follows_its_end(recovery, write, fence):
        return ()
    return recovery.emit(StaleWriteRefused, decision, write=write, fence=fence)


def _follows_its_end(recovery: Recovery, write: WriteKind, fence: Fence) -> bool:
    """Whether a worker only follows up on a lease that its own child has just ended: the heartbeat
    beside the work, or a hand-back, may come a moment late and is no stale write."""
    ended = recovery.ended
    return (
        write in (WriteKind.HEARTBEAT, WriteKind.HAND_BACK)
        and isinstance(ended, LeaseEnded)
        and ended.fence == fence
        and ended.recorded_by.role == "worker"
    )


def end(
    recovery: Recovery,
    decision: Decision,
    ending: Ending,
    *,
    result_digest: str | None = None,
    error_class: str = "",
    message: str = "",
) -> tuple[AnyEvent, ...]:
    """The holder ends its lease: completed, failed, or waiting for a person."""
    done = recovery.ended
    if (
        isinstance(done, LeaseEnded)
        and done.fence == recovery.fence
        and (done.ending, done.result_digest) == (ending, result_digest)
    ):
        return ()
    recovery.require(f"end the lease as {ending.value}", Stage.HELD)
    return recovery.emit(
        LeaseEnded,
        decision,
        ending=ending,
        fence=recovery.fence,
        result_digest=result_digest,
        error_class=error_class,
        message=message,
    )


def time_out(recovery: Recovery, decision: Decision, policy: Policy) -> tuple[AnyEvent, ...]:
    """The execution timeout has passed: end the attempt, or quarantine it as configured."""
    if recovery.stage in (Stage.ENDED, Stage.QUARANTINED):
        return ()
    message = f"execution timeout of {recovery.granted.timeout_s:g} s passed"
    if policy.is_timeout_quarantined:
        return quarantine(recovery, decision, QuarantineCause.TIMEOUT, message)
    return recovery.emit(
        LeaseEnded,
        decision,
        ending=Ending.FAILED,
        fence=recovery.fence,
        error_class="timeout",
        message=message,
    )


def seize(
    recovery: Recovery, decision: Decision, *, fence: Fence, why: SeizeReason
) -> tuple[AnyEvent, ...]:
    """Fence a foreign lease, or take a recovery over; the pipeline continues from its present
    step."""
    if recovery.fence == fence:
        return ()
    recovery.require("seize the lease", *RECOVERING)
    recovery.require_newer("seize the lease", fence)
    return recovery.emit(Seized, decision, why=why, fence=fence, from_fence=recovery.fence)
