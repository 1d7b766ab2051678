"""The commands of the pipeline: its four steps, and what may come between them."""

from datetime import datetime

from domain.checkpoint import Checkpoint, CheckpointProblem
from domain.decisions import TIP_ACTIONS, TipAction, finding, standing
from domain.errors import WrongStage
from domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LiftOption,
    QuarantineCause,
    ReadyForDispatch,
    Replayed,
    Seized,
    SeizeReason,
    StartPoint,
    StepFailed,
    TipStanding,
)
from domain.lease import Fence, LeaseView, LossReason
from domain.pipeline import RecoveryStep
from domain.policy import Policy
from domain.quarantine import quarantine
from domain.recovery import RECOVERING, Decision, Recovery, Stage
from domain.replay import ReplayOutcome, ReplayResult


def expire(
    recovery: Recovery,
    decision: Decision,
    *,
    lease: LeaseView,
    loss: LossReason,
    fence: Fence | None,
    is_fleet_wide: bool = False,
) -> tuple[AnyEvent, ...]:
    """Step 1: declare the lease lost, on the evidence of how it was seen."""
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
    )
    return (event,)


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


def reload(
    recovery: Recovery,
    decision: Decision,
    tip: Checkpoint | CheckpointProblem,
    *,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Step 2: adopt the tip, or what the table of decisions says of it."""
    if recovery.stage is Stage.RELOADED and _has_adopted(recovery, tip):
        return ()
    recovery.require("reload the checkpoint", Stage.EXPIRED)
    _require_fenced(recovery)
    compared = standing(tip, recovery.reported)
    action = TIP_ACTIONS[finding(tip), compared]
    if isinstance(tip, CheckpointProblem):
        return _reload_problem(recovery, decision, tip, action, policy, now)
    match action:
        case TipAction.ADOPT | TipAction.RESTART:
            return _forbidden(recovery, decision, action, policy) or (
                _adopted(recovery, decision, tip, compared),
            )
        case TipAction.ABANDON:
            return abandon(recovery, decision, AbandonReason.ALREADY_COMPLETED)
        case TipAction.WAIT:
            return (
                recovery.event(LeaseEnded, decision, ending=Ending.WAITING, fence=recovery.fence),
            )
        case _:
            return quarantine(
                recovery,
                decision,
                QuarantineCause.TIP_LOST,
                _lost_tip(recovery, tip),
                ordinal=tip.tip_ordinal,
            )


def lose_tip(
    recovery: Recovery,
    decision: Decision,
    problem: CheckpointProblem,
    *,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """The tip was there at the reload, and can no longer be had for the replay."""
    recovery.require("give up the tip", Stage.RELOADED)
    action = TIP_ACTIONS[finding(problem), TipStanding.UNREPORTED]
    return _reload_problem(recovery, decision, problem, action, policy, now)


def replay(
    recovery: Recovery, decision: Decision, outcome: ReplayOutcome, *, policy: Policy, now: datetime
) -> tuple[AnyEvent, ...]:
    """Step 3: record what the replay came to."""
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
    has_given_up = (
        outcome.result is ReplayResult.RAISED and recovery.try_count + 1 >= policy.raise_limit
    )
    if has_given_up:
        explanation = f"{outcome.error_class}: {outcome.message}"
        return quarantine(recovery, decision, QuarantineCause.RAISED, explanation)
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
        code_version=recovery.granted.code_version,
        in_doubt=recovery.reloaded.in_doubt,
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


def _require_fenced(recovery: Recovery) -> None:
    # Until then the lost worker may still write, and the tip that is read here may move.
    if not recovery.is_fenced:
        raise WrongStage(
            recovery.attempt_id,
            wanted="reload the checkpoint",
            found="expired, not yet seized",
            needed=["expired and seized"],
            do="seize the lost lease first",
        )


def _forbidden(
    recovery: Recovery, decision: Decision, action: TipAction, policy: Policy
) -> tuple[AnyEvent, ...]:
    """The quarantine of what the tip allows and policy does not, else nothing."""
    if recovery.fruitless_count >= policy.crash_loop_count:
        explanation = f"{recovery.fruitless_count} recoveries in a row without progress"
        return quarantine(recovery, decision, QuarantineCause.CRASH_LOOP, explanation)
    is_chosen = recovery.lifted in (LiftOption.ACCEPT_TIP, LiftOption.RESTART)
    if action is TipAction.RESTART and not policy.may_restart and not is_chosen:
        explanation = "no checkpoint, and policy forbids restarts"
        return quarantine(recovery, decision, QuarantineCause.NO_CHECKPOINT, explanation)
    return ()


def _is_abandoned(recovery: Recovery, why: AbandonReason) -> bool:
    if why is AbandonReason.RENEWED_LATE:
        return recovery.stage is Stage.HELD and not recovery.is_fenced
    return isinstance(recovery.ended, Abandoned) and recovery.ended.why is why


def _adopted(
    recovery: Recovery, decision: Decision, tip: Checkpoint, compared: TipStanding
) -> CheckpointReloaded:
    return recovery.event(
        CheckpointReloaded,
        decision,
        recovery_no=recovery.recovery_no,
        ref=tip.ref,
        ordinal=tip.ordinal,
        digest=tip.chain,
        input_digest=tip.input_digest,
        standing=compared,
        to_ordinal=tip.tip_ordinal,
        state_digest=tip.state_digest,
        written_by_epoch=tip.written_by_epoch,
        code_version=tip.code_version,
        in_doubt=tip.in_doubt,
    )


def _reload_problem(
    recovery: Recovery,
    decision: Decision,
    problem: CheckpointProblem,
    action: TipAction,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    if action is TipAction.RETRY:
        return fail_step(
            recovery,
            decision,
            RecoveryStep.CHECKPOINT_RELOAD,
            error_class="CheckpointUnavailable",
            message=problem.message,
            policy=policy,
            now=now,
        )
    is_corrupt = action is TipAction.QUARANTINE_CORRUPT
    cause = QuarantineCause.CORRUPT if is_corrupt else QuarantineCause.TIP_LOST
    return quarantine(recovery, decision, cause, problem.message)


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


def _has_adopted(recovery: Recovery, tip: Checkpoint | CheckpointProblem) -> bool:
    return (
        isinstance(tip, Checkpoint)
        and recovery.reloaded is not None
        and (recovery.reloaded.ref, recovery.reloaded.digest) == (tip.ref, tip.chain)
    )


def _lost_tip(recovery: Recovery, tip: Checkpoint) -> str:
    assert recovery.reported is not None
    return (
        f"the lost worker reported run step {recovery.reported.ordinal} and "
        f"{recovery.reported.checkpoint_count} checkpoints, the store shows run step "
        f"{tip.tip_ordinal} and checkpoint {tip.newest_no}"
    )
