"""Maps each finding about a tip to an action: one table over everything that can be found.

The rows are the failures of docs/rules.md, as far as a checkpoint store can show them.
"""

from enum import StrEnum

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.events import LiftOption, QuarantineCause, TipStanding
from recovery_journal.domain.lease import Progress


class TipFinding(StrEnum):
    """The answer of the checkpoint store about a run's tip."""

    CHECKPOINT = "checkpoint"
    INPUT = "input"
    TERMINAL = "terminal"
    WAITING = "waiting"
    MISSING = "missing"
    CORRUPT = "corrupt"
    UNAVAILABLE = "unavailable"
    TOO_NEW = "too_new"
    TOO_LARGE = "too_large"
    FOREIGN = "foreign"


class TipAction(StrEnum):
    """The action of the reload on a finding."""

    ADOPT = "adopt"
    RESTART = "restart"
    ABANDON = "abandon"
    WAIT = "wait"
    RETRY = "retry"
    QUARANTINE_LOST = "quarantine_lost"
    QUARANTINE_CORRUPT = "quarantine_corrupt"
    QUARANTINE_LARGE = "quarantine_large"
    QUARANTINE_FOREIGN = "quarantine_foreign"
    AWAIT_VERSION = "await_version"


def _always(
    finding: TipFinding, action: TipAction
) -> dict[tuple[TipFinding, TipStanding], TipAction]:
    return {(finding, standing): action for standing in TipStanding}


TIP_ACTIONS: dict[tuple[TipFinding, TipStanding], TipAction] = {
    # No progress was reported, so the tip is the best that is known.
    (TipFinding.CHECKPOINT, TipStanding.UNREPORTED): TipAction.ADOPT,
    # The tip is where the lost worker reported it.
    (TipFinding.CHECKPOINT, TipStanding.EQUAL): TipAction.ADOPT,
    # The worker recorded more after its last report: nothing is missing.
    (TipFinding.CHECKPOINT, TipStanding.AHEAD): TipAction.ADOPT,
    # The worker reported more progress than the store now shows: something was lost.
    (TipFinding.CHECKPOINT, TipStanding.BEHIND): TipAction.QUARANTINE_LOST,
    # No checkpoint was ever written: the input and the recorded run steps are the start.
    (TipFinding.INPUT, TipStanding.UNREPORTED): TipAction.RESTART,
    (TipFinding.INPUT, TipStanding.EQUAL): TipAction.RESTART,
    (TipFinding.INPUT, TipStanding.AHEAD): TipAction.RESTART,
    # A checkpoint was reported and none is there.
    (TipFinding.INPUT, TipStanding.BEHIND): TipAction.QUARANTINE_LOST,
    # The run had ended before its worker was lost.
    **_always(TipFinding.TERMINAL, TipAction.ABANDON),
    # The run waits for a person; it must not be dispatched.
    **_always(TipFinding.WAITING, TipAction.WAIT),
    # The store knows of a checkpoint that it cannot return.
    **_always(TipFinding.MISSING, TipAction.QUARANTINE_LOST),
    # Damaged; to fall back to its parent is a person's decision.
    **_always(TipFinding.CORRUPT, TipAction.QUARANTINE_CORRUPT),
    # The store does not answer now; it may later.
    **_always(TipFinding.UNAVAILABLE, TipAction.RETRY),
    # A newer program wrote it, so one that can read it probably runs: a deployment is under way.
    **_always(TipFinding.TOO_NEW, TipAction.AWAIT_VERSION),
    # It will be no smaller later, and a process that loads it might run out of memory.
    **_always(TipFinding.TOO_LARGE, TipAction.QUARANTINE_LARGE),
    # A worker whose lease the journal does not know continued the run.
    **_always(TipFinding.FOREIGN, TipAction.QUARANTINE_FOREIGN),
}

CAUSES: dict[TipAction, QuarantineCause] = {
    TipAction.QUARANTINE_LOST: QuarantineCause.TIP_LOST,
    TipAction.QUARANTINE_CORRUPT: QuarantineCause.CORRUPT,
    TipAction.QUARANTINE_LARGE: QuarantineCause.TOO_LARGE,
    TipAction.QUARANTINE_FOREIGN: QuarantineCause.FOREIGN,
}
"""The cause with which a finding quarantines."""

LIFT_OPTIONS: dict[QuarantineCause, tuple[LiftOption, ...]] = {
    # The store may be fixed, the loss accepted, or the work done again.
    QuarantineCause.TIP_LOST: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
    # An older state with its longer tail gives the same state.
    QuarantineCause.CORRUPT: (LiftOption.RETRY, LiftOption.PARENT, LiftOption.RESTART),
    QuarantineCause.DIVERGED: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
    # The reducer has to be fixed first.
    QuarantineCause.RAISED: (LiftOption.RETRY, LiftOption.RESTART),
    QuarantineCause.CRASH_LOOP: (LiftOption.RETRY, LiftOption.RESTART),
    # A retry runs without the timeout.
    QuarantineCause.TIMEOUT: (LiftOption.RETRY, LiftOption.RESTART),
    QuarantineCause.NO_CHECKPOINT: (LiftOption.RESTART,),
    # Upgrade the sweepers first, or fall back to what this program wrote.
    QuarantineCause.TOO_NEW: (LiftOption.RETRY, LiftOption.PARENT, LiftOption.RESTART),
    # Raise the limit first, or fall back to a smaller state.
    QuarantineCause.TOO_LARGE: (LiftOption.RETRY, LiftOption.PARENT, LiftOption.RESTART),
    # Start a worker of that version first, or accept any version, or restart from the input.
    QuarantineCause.CODE_CHANGED: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
    # The store may be fixed, the foreign writes accepted, or the work done again.
    QuarantineCause.FOREIGN: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
}

FINDINGS: dict[ProblemKind, TipFinding] = {kind: TipFinding(kind.value) for kind in ProblemKind}


def finding(tip: Checkpoint | CheckpointProblem, newest_writer: int | None = None) -> TipFinding:
    """The row of the table for an answer of the store. `newest_writer` is the newest epoch that may
    have written the tip; None, where a person accepted the tip as it is."""
    match tip:
        case CheckpointProblem(kind=kind):
            return FINDINGS[kind]
        case Checkpoint(is_terminal=True):
            return TipFinding.TERMINAL
        case Checkpoint(is_waiting=True):
            return TipFinding.WAITING
        case Checkpoint() if _is_newer(tip.newest_epoch, newest_writer):
            return TipFinding.FOREIGN
        case Checkpoint(ref=None):
            return TipFinding.INPUT
        case _:
            return TipFinding.CHECKPOINT


def _is_newer(epoch: int | None, than: int | None) -> bool:
    return epoch is not None and than is not None and epoch > than


def standing(tip: Checkpoint | CheckpointProblem, reported: Progress | None) -> TipStanding:
    """How a tip compares with the reported progress: run steps first, then saved states."""
    if reported is None or isinstance(tip, CheckpointProblem):
        return TipStanding.UNREPORTED
    here = (tip.tip_ordinal, tip.newest_no)
    there = (reported.ordinal, reported.checkpoint_count)
    if here[0] < there[0] or here[1] < there[1]:
        return TipStanding.BEHIND
    return TipStanding.EQUAL if here == there else TipStanding.AHEAD
