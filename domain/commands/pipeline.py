"""The commands of the pipeline: its four steps, and to abandon it.

Declare the lease lost, reload the run's checkpoint, replay the tail, make the attempt ready for
dispatch.
"""

from datetime import datetime

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem
from recovery_journal.domain.commands.quarantine import quarantine
from recovery_journal.domain.commands.retry import await_codec, await_reader, fail_step
from recovery_journal.domain.decisions import CAUSES, TIP_ACTIONS, TipAction, finding, standing
from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.events import (
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
    StartPoint,
    TipStanding,
)
from recovery_journal.domain.lease import Fence, LeaseView, LossReason, SessionLoss
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import RECOVERING, WAIVING, Decision, Recovery, Stage
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
    return recovery.emit(
        LeaseExpired,
        decision,
        recovery_no=recovery.recovery_no + 1,
        lease=lease,
        loss=loss,
        fence=fence,
        is_fleet_wide=is_fleet_wide,
        tenant=recovery.granted.tenant,
        session=session,
    )


def reload(
    recovery: Recovery,
    decision: Decision,
    tip: Checkpoint | CheckpointProblem,
    *,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Step 2: adopt the tip, or do what the table of decisions requires."""
    if recovery.stage is Stage.RELOADED and _has_adopted(recovery, tip):
        return ()
    recovery.require("reload the checkpoint", Stage.EXPIRED)
    _require_fenced(recovery)
    if isinstance(tip, CheckpointProblem):
        return _meet_problem(
            recovery, decision, tip, RecoveryStep.CHECKPOINT_RELOAD, policy=policy, now=now
        )
    compared = standing(tip, recovery.reported)
    action = TIP_ACTIONS[finding(tip, recovery.trusted_writer), compared]
    match action:
        case TipAction.ADOPT | TipAction.RESTART:
            return _forbid(recovery, decision, action, policy) or _adopt(
                recovery, decision, tip, compared
            )
        case TipAction.ABANDON:
            return abandon(recovery, decision, AbandonReason.ALREADY_COMPLETED)
        case TipAction.WAIT:
            return recovery.emit(LeaseEnded, decision, ending=Ending.WAITING, fence=recovery.fence)
        case _:
            explain = _foreign_tip if action is TipAction.QUARANTINE_FOREIGN else _lost_tip
            explanation = explain(recovery, tip)
            return quarantine(
                recovery, decision, CAUSES[action], explanation, ordinal=tip.tip_ordinal
            )


def lose_tip(
    recovery: Recovery,
    decision: Decision,
    problem: CheckpointProblem,
    *,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    """Act on a tip that was there at the reload, and cannot be read for the replay any more."""
    recovery.require("give up the tip", Stage.RELOADED)
    return _meet_problem(recovery, decision, problem, RecoveryStep.REPLAY, policy=policy, now=now)


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
    if outcome.has_diverged and recovery.lifted is not LiftOption.ACCEPT_TIP:
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
    if outcome.has_diverged or outcome.result is ReplayResult.REPLAYED:
        return recovery.emit(
            Replayed,
            decision,
            mode=outcome.mode,
            from_ordinal=outcome.from_ordinal,
            to_ordinal=outcome.to_ordinal,
            digest=outcome.digest,
            expected_digest=outcome.expected_digest,
            expected_from=outcome.expected_from,
            state_digest=outcome.state_digest,
        )
    error, message = outcome.error_class, outcome.message
    if outcome.result is ReplayResult.UNREADABLE:
        return await_codec(
            recovery, decision, RecoveryStep.REPLAY, message=message, policy=policy, now=now
        )
    if outcome.result is ReplayResult.RAISED and recovery.try_count + 1 >= policy.raise_limit:
        return quarantine(recovery, decision, QuarantineCause.RAISED, error, message=message)
    return fail_step(
        recovery,
        decision,
        RecoveryStep.REPLAY,
        error_class=error,
        message=message,
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
    return recovery.emit(
        ReadyForDispatch,
        decision,
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
    fence = lease.fence if lease else recovery.fence
    return recovery.emit(Abandoned, decision, why=why, fence=fence, lease=lease)


def _is_abandoned(recovery: Recovery, why: AbandonReason) -> bool:
    if why is AbandonReason.RENEWED_LATE:
        return recovery.stage is Stage.HELD and not recovery.is_fenced
    return isinstance(recovery.ended, Abandoned) and recovery.ended.why is why


def _require_fenced(recovery: Recovery) -> None:
    # Until then the lost worker may still write, and the tip that is read here may change.
    if not recovery.is_fenced:
        raise WrongStage(
            recovery.attempt_id,
            wanted="reload the checkpoint",
            found="expired, not yet seized",
            needed="expired and seized",
            do="seize the lost lease first",
        )


def _has_adopted(recovery: Recovery, tip: Checkpoint | CheckpointProblem) -> bool:
    return (
        isinstance(tip, Checkpoint)
        and recovery.reloaded is not None
        and (recovery.reloaded.ref, recovery.reloaded.digest) == (tip.ref, tip.chain)
    )


def _adopt(
    recovery: Recovery, decision: Decision, tip: Checkpoint, compared: TipStanding
) -> tuple[AnyEvent, ...]:
    return recovery.emit(
        CheckpointReloaded,
        decision,
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
        newest_epoch=tip.newest_epoch,
    )


def _forbid(
    recovery: Recovery, decision: Decision, action: TipAction, policy: Policy
) -> tuple[AnyEvent, ...]:
    """The quarantine where the tip would allow an action that the policy forbids, else nothing."""
    if loop := _crash_loop(recovery, policy):
        return quarantine(recovery, decision, QuarantineCause.CRASH_LOOP, loop)
    is_chosen = recovery.lifted in WAIVING
    if action is TipAction.RESTART and not policy.may_restart and not is_chosen:
        explanation = "no checkpoint, and policy forbids restarts"
        return quarantine(recovery, decision, QuarantineCause.NO_CHECKPOINT, explanation)
    return ()


def _crash_loop(recovery: Recovery, policy: Policy) -> str:
    """Which crash loop the attempt is in, and why it was lost last; empty if in none."""
    if recovery.recoveries_without_progress >= policy.crash_loop_count:
        loop = f"{recovery.recoveries_without_progress} recoveries in a row without progress"
    elif recovery.fleet_losses_without_progress >= policy.excuse_limit:
        losses = recovery.fleet_losses_without_progress
        loop = f"{losses} losses of the fleet in a row without progress"
    else:
        return ""
    reason = recovery.lost.reason if recovery.lost else ""
    return f"{loop}; the last: {reason}" if reason else loop


def _meet_problem(
    recovery: Recovery,
    decision: Decision,
    problem: CheckpointProblem,
    step: RecoveryStep,
    *,
    policy: Policy,
    now: datetime,
) -> tuple[AnyEvent, ...]:
    action = TIP_ACTIONS[finding(problem), TipStanding.UNREPORTED]
    message = problem.message
    if action is TipAction.AWAIT_VERSION:
        return await_reader(recovery, decision, step, message=message, policy=policy, now=now)
    if action is TipAction.RETRY:
        error = "CheckpointUnavailable"
        return fail_step(
            recovery, decision, step, error_class=error, message=message, policy=policy, now=now
        )
    return quarantine(recovery, decision, CAUSES[action], message)


def _foreign_tip(recovery: Recovery, tip: Checkpoint) -> str:
    return (
        f"epoch {tip.newest_epoch} wrote to the run, and no later one than epoch "
        f"{recovery.newest_writer} was ever granted for this attempt"
    )


def _lost_tip(recovery: Recovery, tip: Checkpoint) -> str:
    assert recovery.reported is not None
    return (
        f"the lost worker reported run step {recovery.reported.ordinal} and "
        f"{recovery.reported.checkpoint_count} checkpoints, the store shows run step "
        f"{tip.tip_ordinal} and checkpoint {tip.newest_no}"
    )
