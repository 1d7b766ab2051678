"""What a found tip leads to: one table over everything that can be found.

The rows are the failures of docs/rules.md, as far as a checkpoint store can show them.
"""

from enum import StrEnum

from domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from domain.events import LiftOption, QuarantineCause, TipStanding
from domain.lease import Progress


class TipFinding(StrEnum):
    """What the checkpoint store answered."""

    CHECKPOINT = "checkpoint"
    INPUT = "input"
    TERMINAL = "terminal"
    WAITING = "waiting"
    MISSING = "missing"
    CORRUPT = "corrupt"
    UNAVAILABLE = "unavailable"


class TipAction(StrEnum):
    """What the reload does about it."""

    ADOPT = "adopt"
    RESTART = "restart"
    ABANDON = "abandon"
    WAIT = "wait"
    RETRY = "retry"
    QUARANTINE_LOST = "quarantine_lost"
    QUARANTINE_CORRUPT = "quarantine_corrupt"


def _always(
    finding: TipFinding, action: TipAction
) -> dict[tuple[TipFinding, TipStanding], TipAction]:
    return {(finding, standing): action for standing in TipStanding}


TIP_ACTIONS: dict[tuple[TipFinding, TipStanding], TipAction] = {
    # Nobody said how far the run had come, so the tip is the best that is known.
    (TipFinding.CHECKPOINT, TipStanding.UNREPORTED): TipAction.ADOPT,
    # The tip is where the lost worker said it was.
    (TipFinding.CHECKPOINT, TipStanding.EQUAL): TipAction.ADOPT,
    # The worker recorded more after its last report: nothing is missing.
    (TipFinding.CHECKPOINT, TipStanding.AHEAD): TipAction.ADOPT,
    # The worker said it had come further than the store now shows: something was lost.
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
    # The store knows of a checkpoint that it cannot show.
    **_always(TipFinding.MISSING, TipAction.QUARANTINE_LOST),
    # Damaged; falling back to its parent is a person's decision.
    **_always(TipFinding.CORRUPT, TipAction.QUARANTINE_CORRUPT),
    # The store does not answer now; it may later.
    **_always(TipFinding.UNAVAILABLE, TipAction.RETRY),
}

LIFT_OPTIONS: dict[QuarantineCause, tuple[LiftOption, ...]] = {
    # The store may be mended, the loss accepted, or the work done again.
    QuarantineCause.TIP_LOST: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
    # An older state with its longer tail leads to the same place.
    QuarantineCause.CORRUPT: (LiftOption.RETRY, LiftOption.PARENT, LiftOption.RESTART),
    QuarantineCause.DIVERGED: (LiftOption.RETRY, LiftOption.ACCEPT_TIP, LiftOption.RESTART),
    # The reducer has to be mended first.
    QuarantineCause.RAISED: (LiftOption.RETRY, LiftOption.RESTART),
    QuarantineCause.CRASH_LOOP: (LiftOption.RETRY, LiftOption.RESTART),
    # Going on means without the timeout.
    QuarantineCause.TIMEOUT: (LiftOption.RETRY, LiftOption.RESTART),
    QuarantineCause.NO_CHECKPOINT: (LiftOption.RESTART,),
}


def finding(tip: Checkpoint | CheckpointProblem) -> TipFinding:
    """Which row of the table an answer of the store belongs to."""
    match tip:
        case CheckpointProblem(kind=ProblemKind.MISSING):
            return TipFinding.MISSING
        case CheckpointProblem(kind=ProblemKind.CORRUPT):
            return TipFinding.CORRUPT
        case CheckpointProblem():
            return TipFinding.UNAVAILABLE
        case Checkpoint(is_terminal=True):
            return TipFinding.TERMINAL
        case Checkpoint(is_waiting=True):
            return TipFinding.WAITING
        case Checkpoint(ref=None):
            return TipFinding.INPUT
        case _:
            return TipFinding.CHECKPOINT


def standing(tip: Checkpoint | CheckpointProblem, reported: Progress | None) -> TipStanding:
    """How a tip compares with the reported progress: run steps first, then saved states."""
    if reported is None or isinstance(tip, CheckpointProblem):
        return TipStanding.UNREPORTED
    here = (tip.tip_ordinal, tip.newest_no)
    there = (reported.ordinal, reported.checkpoint_count)
    if here[0] < there[0] or here[1] < there[1]:
        return TipStanding.BEHIND
    return TipStanding.EQUAL if here == there else TipStanding.AHEAD
