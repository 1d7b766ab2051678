"""Steps 1, 3 and 4 of the pipeline: declare a lease lost, replay its tail, make it ready."""

from datetime import datetime

from recovery_journal.domain.detours import await_codec, fail_step
from recovery_journal.domain.events import (
    AnyEvent,
    LeaseExpired,
    LiftOption,
    QuarantineCause,
    ReadyForDispatch,
    Replayed,
    StartPoint,
)
from recovery_journal.domain.lease import Fence, LeaseView, LossReason, SessionLoss
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.quarantine import quarantine
from recovery_journal.domain.recovery import Decision, Recovery, Stage
from recovery_journal.domain.replay import ReplayOutcome, ReplayResult


def expire(
    recovery: Recovery,
    decision: Decision,
    *,
    lease: LeaseView,
    loss: LossReason,
    fence: Fence | None,
    is_fleet_wide: bool = False,
    session: SessionLoss | None = None,
) -> tuple[AnyEvent, ...]:
    """Step 1: declare the lease lost, on the evidence of its row as it was seen."""
    if (
        recovery.stage is not Stage.HELD
        and recovery.lost
        and recovery.lost.lease.fence == lease.fence
    ):
        return ()
    recovery.require("declare the lease lost", Stage.HELD)
    if lease.fence.epoch < recovery.fence.epoch:
        raise recovery.lease_lost("declare the lease lost", lease.fence)
    if fence is not None:
        recovery.require_newer("fence the lost lease", fence)
    event = recovery.event(
        LeaseExpired,
        decision,
        lease=lease,
        loss=loss,
        recovery_no=recovery.recovery_no + 1,
        fence=fence,
        is_fleet_wide=is_fleet_wide,
        tenant=recovery.granted.tenant,
        session=session,
    )
    return (event,)


def replay(
    recovery: Recovery, decision: Decision, outcome: ReplayOutcome, *, policy: Policy, now: datetime
) -> tuple[AnyEvent, ...]:
    """Step 3: record the outcome of the replay."""
    if (
        recovery.stage is Stage.REPLAYED
        and recovery.replayed
        and recovery.replayed.digest == outcome.digest
    ):
        return ()
    recovery.require("replay the tail", Stage.RELOADED)
    is_accepted = outcome.has_diverged and recovery.lifted is LiftOption.ACCEPT_TIP
    if is_accepted or (outcome.result is ReplayResult.REPLAYED and not outcome.has_diverged):
        return (_replayed(recovery, decision, outcome),)
    if outcome.has_diverged:
        ordinal = outcome.to_ordinal if outcome.diverged_at is None else outcome.diverged_at
        return quarantine(
            recovery,
            decision,
            QuarantineCause.DIVERGED,
            f"replay diverged at run step {ordinal}",
            ordinal=ordinal,
            found_digest=outcome.digest,
            expected_digest=outcome.expected_digest,
        )
    if outcome.result is ReplayResult.UNREADABLE:
        message = outcome.message
        return await_codec(
            recovery, decision, RecoveryStep.REPLAY, message=message, policy=policy, now=now
        )
    has_given_up = (
        outcome.result is ReplayResult.RAISED and recovery.try_count + 1 >= policy.raise_limit
    )
    if has_given_up:
        return quarantine(
            recovery,
            decision,
            QuarantineCause.RAISED,
            outcome.error_class,
            message=outcome.message,
        )
    return fail_step(
        recovery,
        decision,
        RecoveryStep.REPLAY,
        error_class=outcome.error_class,
        message=outcome.message,
        policy=policy,
        now=now,
    )


def make_ready(
    recovery: Recovery, decision: Decision, *, now: datetime, not_before: datetime | None = None
) -> tuple[AnyEvent, ...]:
    """Step 4: put the attempt up for dispatch; never before it is reloaded and replayed."""
    if recovery.stage is Stage.READY:
        return ()
    recovery.require("make the attempt ready for dispatch", Stage.REPLAYED)
    assert recovery.reloaded is not None
    event = recovery.event(
        ReadyForDispatch,
        decision,
        recovery_no=recovery.recovery_no,
        start=StartPoint.TIP if recovery.reloaded.state_digest else StartPoint.INPUT,
        attempt_no=recovery.granted.attempt_no,
        kind=recovery.granted.kind,
        priority=recovery.granted.priority,
        ready_at=now,
        not_before=not_before,
        tenant=recovery.granted.tenant,
        code_version=recovery.code_version,
        in_doubt=recovery.reloaded.in_doubt,
    )
    return (event,)


def _replayed(recovery: Recovery, decision: Decision, outcome: ReplayOutcome) -> Replayed:
    return recovery.event(
        Replayed,
        decision,
        recovery_no=recovery.recovery_no,
        mode=outcome.mode,
        from_ordinal=outcome.from_ordinal,
        to_ordinal=outcome.to_ordinal,
        digest=outcome.digest,
        expected_digest=outcome.expected_digest,
        expected_from=outcome.expected_from,
        state_digest=outcome.state_digest,
    )
