"""Histories for tests: what is given, said in one line an event.

A *happening* becomes an event once its place in a stream is known, so that a test says what
happened and never counts versions:

    recovery = given(granted(), expired(epoch=2), reloaded(), replayed(), ready())

Nothing here asks the commands, so that a history may also be one that no command would make.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from recovery_journal.domain.checkpoint import Checkpoint
from recovery_journal.domain.decisions import LIFT_OPTIONS
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    LiftOption,
    QuarantineCause,
    Quarantined,
    QuarantineLifted,
    ReadyForDispatch,
    RecoveryEvent,
    Replayed,
    Resumed,
    Seized,
    SeizeReason,
    StaleWriteRefused,
    StartPoint,
    StepFailed,
    TipStanding,
    WriteKind,
)
from recovery_journal.domain.lease import LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import Recovery, Stage, evolve
from recovery_journal.domain.replay import ReplayMode
from tests.domain.specimens import (
    ATTEMPT_ID,
    CODE_VERSION,
    INPUT_DIGEST,
    KIND,
    NOW,
    PERSON,
    RUN_ID,
    SWEEPER,
    chain_at,
    checkpoint,
    fence,
    holder,
    lease_view,
)

Happening = Callable[[str, int], AnyEvent]
"""(attempt id, version) → the event at that place."""


def given(*happenings: Happening, attempt_id: str = ATTEMPT_ID) -> Recovery:
    """The attempt after these happenings; the first must open it."""
    recovery: Recovery | None = None
    for event in history(*happenings, attempt_id=attempt_id):
        recovery = evolve(recovery, event)
    assert recovery is not None, "a history begins with granted()"
    return recovery


def history(*happenings: Happening, attempt_id: str = ATTEMPT_ID) -> tuple[AnyEvent, ...]:
    """The stream of these happenings, numbered from 1."""
    return tuple(happen(attempt_id, version) for version, happen in enumerate(happenings, start=1))


def granted(epoch: int = 1, **changes: Any) -> Happening:
    """A worker opened the attempt."""
    return _happening(
        LeaseGranted,
        changes,
        holder=holder(),
        fence=fence(epoch),
        ttl_s=30.0,
        kind=KIND,
        code_version=CODE_VERSION,
        attempt_no=1,
        input_digest=INPUT_DIGEST,
        timeout_s=7200.0,
    )


def expired(
    epoch: int | None = 2,
    *,
    lost_epoch: int = 1,
    recovery_no: int = 1,
    reported: Progress | None = None,
    **changes: Any,
) -> Happening:
    """The lease was lost; its attempt now has the fence of `epoch`, or still the old one."""
    return _happening(
        LeaseExpired,
        changes,
        lease=lease_view(lost_epoch, progress=reported),
        loss=LossReason.TTL,
        recovery_no=recovery_no,
        fence=None if epoch is None else fence(epoch),
    )


def seized(
    epoch: int, *, from_epoch: int, why: SeizeReason = SeizeReason.SWEEPER_LOST, **changes: Any
) -> Happening:
    """The fence was replaced in the middle of a recovery."""
    return _happening(
        Seized, changes, recovery_no=1, why=why, fence=fence(epoch), from_fence=fence(from_epoch)
    )


def reloaded(tip: Checkpoint | None = None, **changes: Any) -> Happening:
    """The tip was adopted."""
    tip = tip or checkpoint()
    return _happening(
        CheckpointReloaded,
        changes,
        recovery_no=1,
        ref=tip.ref,
        ordinal=tip.ordinal,
        digest=tip.chain,
        input_digest=tip.input_digest,
        standing=TipStanding.UNREPORTED,
        to_ordinal=tip.tip_ordinal,
        state_digest=tip.state_digest,
        written_by_epoch=tip.written_by_epoch,
        code_version=tip.code_version,
        in_doubt=tip.in_doubt,
    )


def replayed(tip: Checkpoint | None = None, **changes: Any) -> Happening:
    """The tail was replayed and reached the recorded digest."""
    tip = tip or checkpoint()
    reached = chain_at(tip.tip_ordinal)
    return _happening(
        Replayed,
        changes,
        recovery_no=1,
        mode=ReplayMode.CHAIN,
        from_ordinal=tip.ordinal + 1,
        to_ordinal=tip.tip_ordinal,
        digest=reached,
        expected_digest=reached,
        expected_from="run step",
    )


def ready(**changes: Any) -> Happening:
    """The attempt was put up for dispatch."""
    return _happening(
        ReadyForDispatch,
        changes,
        recovery_no=1,
        start=StartPoint.TIP,
        attempt_no=1,
        kind=KIND,
        priority=0,
        ready_at=NOW,
        code_version=CODE_VERSION,
    )


def dispatched(epoch: int = 3, *, worker_id: str = "w-2", **changes: Any) -> Happening:
    """A worker's claim won."""
    return _happening(
        Dispatched,
        changes,
        recovery_no=1,
        holder=holder(worker_id),
        fence=fence(epoch),
        ttl_s=30.0,
        dispatch_id=f"claim-{epoch}",
    )


def recovered(*, lost_epoch: int, recovery_no: int, **loss: Any) -> tuple[Happening, ...]:
    """A whole recovery: lost, reloaded, replayed, ready, held again two epochs later."""
    return (
        expired(lost_epoch + 1, lost_epoch=lost_epoch, recovery_no=recovery_no, **loss),
        reloaded(recovery_no=recovery_no),
        replayed(recovery_no=recovery_no),
        ready(recovery_no=recovery_no),
        dispatched(lost_epoch + 2, recovery_no=recovery_no),
    )


def confirmed(epoch: int = 1, **changes: Any) -> Happening:
    """The holder's first write was accepted."""
    return _happening(Confirmed, changes, fence=fence(epoch), write=WriteKind.RUN_STEP, ordinal=1)


def step_failed(try_count: int = 1, **changes: Any) -> Happening:
    """A step could not be taken."""
    return _happening(
        StepFailed,
        changes,
        recovery_no=1,
        failed_step=RecoveryStep.CHECKPOINT_RELOAD,
        error_class="CheckpointUnavailable",
        message="the state is unavailable",
        try_count=try_count,
        retry_at=NOW + timedelta(seconds=1),
    )


def abandoned(why: AbandonReason = AbandonReason.CANCELLED, **changes: Any) -> Happening:
    """The recovery was stopped."""
    return _happening(Abandoned, changes, recovery_no=1, why=why)


def quarantined(cause: QuarantineCause = QuarantineCause.TIP_LOST, **changes: Any) -> Happening:
    """No machine continues."""
    return _happening(
        Quarantined,
        changes,
        recovery_no=1,
        cause=cause,
        explanation=cause.value,
        options=LIFT_OPTIONS[cause],
    )


def lifted(option: LiftOption = LiftOption.RETRY, *, epoch: int = 3, **changes: Any) -> Happening:
    """A person chose how to proceed."""
    return _happening(
        QuarantineLifted,
        {"recorded_by": PERSON, **changes},
        recovery_no=1,
        option=option,
        fence=fence(epoch),
    )


def resumed(epoch: int = 2, **changes: Any) -> Happening:
    """A person resumed a waiting attempt."""
    return _happening(
        Resumed, {"recorded_by": PERSON, **changes}, recovery_no=0, fence=fence(epoch)
    )


def refused(epoch: int = 1, *, write: WriteKind = WriteKind.HEARTBEAT, **changes: Any) -> Happening:
    """A fenced-out worker tried to write."""
    return _happening(StaleWriteRefused, changes, write=write, fence=fence(epoch))


def ended(ending: Ending = Ending.COMPLETED, *, epoch: int = 1, **changes: Any) -> Happening:
    """The attempt ended, or waits for a person."""
    return _happening(LeaseEnded, changes, ending=ending, fence=fence(epoch))


def _happening(of: type[RecoveryEvent], changes: dict[str, Any], **fields: Any) -> Happening:
    def happen(attempt_id: str, version: int) -> AnyEvent:
        envelope = {
            "originator_id": attempt_id,
            "originator_version": version,
            "event_id": f"event-{version}",
            "run_id": RUN_ID,
            "recorded_by": SWEEPER,
        }
        event: Any = of(**{**envelope, **fields, **changes})
        return event  # type: ignore[no-any-return]  # every class given here is one of AnyEvent

    return happen


STANDING: dict[Stage, tuple[Happening, ...]] = {
    Stage.HELD: (granted(),),
    Stage.EXPIRED: (granted(), expired()),
    Stage.RELOADED: (granted(), expired(), reloaded()),
    Stage.REPLAYED: (granted(), expired(), reloaded(), replayed()),
    Stage.READY: (granted(), expired(), reloaded(), replayed(), ready()),
    Stage.QUARANTINED: (granted(), expired(), quarantined()),
    Stage.WAITING: (granted(), ended(Ending.WAITING)),
    Stage.ENDED: (granted(), ended()),
}
"""A shortest history to each stage; the fence is epoch 1 until the loss and 2 after it."""


def standing_at(stage: Stage) -> Recovery:
    """An attempt that stands at this stage."""
    return given(*STANDING[stage])
