"""Step 2 of the pipeline: adopt the run's tip, or do what the table of decisions requires."""

from datetime import datetime

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem
from recovery_journal.domain.decisions import CAUSES, TIP_ACTIONS, TipAction, finding, standing
from recovery_journal.domain.detours import abandon, await_reader, fail_step
from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Ending,
    LeaseEnded,
    LiftOption,
    QuarantineCause,
    TipStanding,
)
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.quarantine import quarantine
from recovery_journal.domain.recovery import Decision, Recovery, Stage


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
    compared = standing(tip, recovery.reported)
    action = TIP_ACTIONS[finding(tip, recovery.trusted_writer), compared]
    if isinstance(tip, CheckpointProblem):
        return _meet_problem(
            recovery, decision, tip, RecoveryStep.CHECKPOINT_RELOAD, policy=policy, now=now
        )
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
            explain = _foreign_tip if action is TipAction.QUARANTINE_FOREIGN else _lost_tip
            return quarantine(
                recovery,
                decision,
                CAUSES[action],
                explain(recovery, tip),
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
    """Act on a tip that was there at the reload, and cannot be read for the replay any more."""
    recovery.require("give up the tip", Stage.RELOADED)
    return _meet_problem(recovery, decision, problem, RecoveryStep.REPLAY, policy=policy, now=now)


def _require_fenced(recovery: Recovery) -> None:
    # Until then the lost worker may still write, and the tip that is read here may change.
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
    """The quarantine where the tip would allow an action that the policy forbids, else nothing."""
    looped = _crash_loop(recovery, policy)
    if looped:
        return quarantine(recovery, decision, QuarantineCause.CRASH_LOOP, looped)
    is_chosen = recovery.lifted in (LiftOption.ACCEPT_TIP, LiftOption.RESTART)
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
        newest_epoch=tip.newest_epoch,
    )


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
    if action is TipAction.AWAIT_VERSION:
        return await_reader(
            recovery, decision, step, message=problem.message, policy=policy, now=now
        )
    if action is TipAction.RETRY:
        return fail_step(
            recovery,
            decision,
            step,
            error_class="CheckpointUnavailable",
            message=problem.message,
            policy=policy,
            now=now,
        )
    return quarantine(recovery, decision, CAUSES[action], problem.message)


def _has_adopted(recovery: Recovery, tip: Checkpoint | CheckpointProblem) -> bool:
    return (
        isinstance(tip, Checkpoint)
        and recovery.reloaded is not None
        and (recovery.reloaded.ref, recovery.reloaded.digest) == (tip.ref, tip.chain)
    )


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
