"""The invariants of a stream: finds events that cannot have happened after those before them.

Commands append none of these, so such an event was appended by something else, or one before it is
missing. `evolve` folds them all the same, but no decision is made on such a stream.
"""

from typing import Final

from recovery_journal.domain.events import (
    Abandoned,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    Quarantined,
    QuarantineLifted,
    ReadyForDispatch,
    RecoveryEvent,
    Replayed,
    Resumed,
    Seized,
    StaleWriteRefused,
    StepFailed,
)
from recovery_journal.domain.lease import Fence
from recovery_journal.domain.recovery import RECOVERING, Recovery, Stage

OPEN: Final = frozenset(Stage) - {Stage.ENDED}

# The stages in which an event may follow.
STAGES: Final[dict[type[RecoveryEvent], frozenset[Stage]]] = {
    LeaseGranted: frozenset(),
    LeaseExpired: frozenset({Stage.HELD}),
    Seized: frozenset(RECOVERING),
    CheckpointReloaded: frozenset({Stage.EXPIRED}),
    Replayed: frozenset({Stage.RELOADED}),
    ReadyForDispatch: frozenset({Stage.REPLAYED}),
    Dispatched: frozenset({Stage.READY}),
    Confirmed: frozenset({Stage.HELD}),
    StepFailed: frozenset(RECOVERING),
    Abandoned: frozenset({*RECOVERING, Stage.READY}),
    # In any stage the timeout may pass, and a person may cancel.
    Quarantined: OPEN,
    QuarantineLifted: frozenset({Stage.QUARANTINED}),
    Resumed: frozenset({Stage.WAITING}),
    StaleWriteRefused: frozenset(Stage),
    LeaseEnded: OPEN,
}


FENCED: Final = frozenset(
    {Confirmed, Dispatched, LeaseEnded, LeaseExpired, QuarantineLifted, Resumed, Seized}
)
"""The events that name a fence."""


def contradiction(recovery: Recovery, event: AnyEvent) -> str | None:
    """Why the event cannot have happened to this attempt; None where it can."""
    kind = type(event)
    if kind is LeaseGranted:
        return "which grants an attempt that was granted before"
    if event.run_id != recovery.run_id:
        return f"which names run {event.run_id!r} and not {recovery.run_id!r}"
    if recovery.stage not in STAGES[kind]:
        return f"which cannot come in stage {recovery.stage.value}"
    expected = recovery.recovery_no + (kind is LeaseExpired)
    found = getattr(event, "recovery_no", expected)
    if found != expected:
        return f"of recovery {found} and not {expected}"
    return _wrong_fence(recovery, event) if kind in FENCED else None


def _wrong_fence(recovery: Recovery, event: AnyEvent) -> str | None:
    """Fences only grow, and each writer names the newest one."""
    match event:
        case LeaseExpired(fence=None):
            return None
        case Seized(from_fence=before) if before != recovery.fence:
            return f"which takes epoch {before.epoch} for the newest, not {recovery.fence.epoch}"
        case (
            LeaseExpired(fence=Fence() as fence)
            | Seized(fence=fence)
            | Dispatched(fence=fence)
            | QuarantineLifted(fence=fence)
            | Resumed(fence=fence)
        ):
            is_newer = fence.epoch > recovery.fence.epoch
            return None if is_newer else f"epoch {fence.epoch} after epoch {recovery.fence.epoch}"
        case LeaseEnded(ending=Ending.COMPLETED) if recovery.stage is not Stage.HELD:
            return f"which cannot come in stage {recovery.stage.value}"
        case Confirmed() | LeaseEnded():
            return _other_fence(recovery, event.fence)
        case _:
            return None


def _other_fence(recovery: Recovery, fence: Fence) -> str | None:
    if fence == recovery.fence:
        return None
    return f"under epoch {fence.epoch}, while epoch {recovery.fence.epoch} is the newest"
