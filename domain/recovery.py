"""The aggregate: the whole history of the ownership of one attempt.

The commands (`domain.commands`) decide and return events. `evolve` never refuses: what is in the
log has happened.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Any, Final, TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain import events
from recovery_journal.domain.errors import DECIDE_AGAIN, CorruptEvent, LeaseLost, WrongStage
from recovery_journal.domain.lease import Actor, Fence, Holder, LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryContext

EventT = TypeVar("EventT", bound=events.RecoveryEvent)


class Stage(StrEnum):
    """The stage of an attempt, derived from its events."""

    HELD = "held"
    EXPIRED = "expired"
    RELOADED = "reloaded"
    REPLAYED = "replayed"
    READY = "ready"
    QUARANTINED = "quarantined"
    WAITING = "waiting"
    ENDED = "ended"


RECOVERING = (Stage.EXPIRED, Stage.RELOADED, Stage.REPLAYED)
"""The stages in which a sweeper owns the attempt."""

WAIVING = (events.LiftOption.ACCEPT_TIP, events.LiftOption.RESTART)
"""With these options a person accepts what the store shows as the truth, whatever was reported."""

UNSTARTED: Final[dict[str, Any]] = {
    "reloaded": None,
    "replayed": None,
    "ready": None,
    "try_count": 0,
    "waits_since": None,
}
"""The steps of a pipeline that begins at the reload."""


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """One decision: its id, drawn once, its author and its reason."""

    event_id: str
    by: Actor
    reason: str = ""
    trace_id: str | None = None


class Recovery(Struct, frozen=True, kw_only=True, gc=False):
    """One attempt as its events describe it. `version` is the number of the last event.

    `code_version` is what it requires of a worker; empty once a person has waived it.
    `newest_writer` is the newest epoch under which its run may have been written to.
    `fleet_losses_without_progress` is how often in a row it was lost with most of the fleet.
    `waits_since` is the time since which it waits for a program that can read its checkpoint.
    `undecoded_since` is when the first process without the codecs of its values requeued it since
    its last progress, `undecoded_count` how many did.
    """

    attempt_id: str
    version: int
    stage: Stage
    granted: events.LeaseGranted
    holder: Holder
    fence: Fence
    code_version: str = ""
    newest_writer: int = 0
    dispatch_id: str | None = None
    is_confirmed: bool = False
    recovery_no: int = 0
    recoveries_without_progress: int = 0
    fleet_losses_without_progress: int = 0
    best_progress: tuple[int, int] = (0, 0)
    lost: events.LeaseExpired | None = None
    lifted: events.LiftOption | None = None
    is_resumed: bool = False
    reloaded: events.CheckpointReloaded | None = None
    replayed: events.Replayed | None = None
    ready: events.ReadyForDispatch | None = None
    try_count: int = 0
    waits_since: datetime | None = None
    undecoded_since: datetime | None = None
    undecoded_count: int = 0
    quarantined: events.Quarantined | None = None
    refused: frozenset[tuple[int, events.WriteKind]] = frozenset()
    ended: events.LeaseEnded | events.Abandoned | None = None

    @property
    def id(self) -> str:
        """The stream's id, under the library's name."""
        return self.attempt_id

    @property
    def run_id(self) -> str:
        """The run to which this attempt belongs."""
        return self.granted.run_id

    @property
    def reported(self) -> Progress | None:
        """The progress of the lost lease, unless a person accepted the tip as it is."""
        if self.lost is None or self.lifted in WAIVING:
            return None
        return self.lost.lease.progress

    @property
    def trusted_writer(self) -> int | None:
        """The newest epoch that may have written the tip; None where a person accepted the tip as
        it is."""
        return None if self.lifted is events.LiftOption.ACCEPT_TIP else self.newest_writer

    @property
    def is_fenced(self) -> bool:
        """Whether the worker whose lease was lost can write nothing any more."""
        return self.lost is None or self.fence.epoch > self.lost.lease.fence.epoch

    def context(self) -> RecoveryContext:
        """The context of the present recovery's replay. Refused before the reload."""
        if self.reloaded is None:
            raise self.wrong_stage("give a recovery context", Stage.RELOADED)
        return RecoveryContext(
            attempt_id=self.attempt_id,
            run_id=self.run_id,
            kind=self.granted.kind,
            recovery_no=self.recovery_no,
            checkpoint=self.reloaded.ref,
            from_ordinal=self.reloaded.ordinal + 1,
            to_ordinal=self.reloaded.to_ordinal,
            expected=self.reported,
            fence=self.fence,
        )

    def emit(self, of: type[EventT], decision: Decision, **fields: Any) -> tuple[EventT, ...]:
        """The stream's next event, made by this decision, in the form that commands return. An
        event with a `recovery_no` is one of the present recovery, unless another is given."""
        if "recovery_no" in of.__struct_fields__:
            fields.setdefault("recovery_no", self.recovery_no)
        event = of(
            originator_id=self.attempt_id,
            originator_version=self.version + 1,
            event_id=decision.event_id,
            run_id=self.run_id,
            recorded_by=decision.by,
            reason=decision.reason,
            trace_id=decision.trace_id,
            **fields,
        )
        return (event,)

    def require(self, wanted: str, *stages: Stage) -> None:
        """Refuse a command in any other stage than these."""
        if self.stage not in stages:
            raise self.wrong_stage(wanted, *stages)

    def require_newer(self, wanted: str, fence: Fence) -> None:
        """Refuse a fence whose epoch is not larger: the attempt has advanced since the fence was
        drawn."""
        if fence.epoch <= self.fence.epoch:
            raise self.lease_lost(wanted, fence)

    def lease_lost(self, wanted: str, fence: Fence) -> LeaseLost:
        """The error to raise for a call that relies on an older fence."""
        return LeaseLost(
            self.attempt_id,
            operation=wanted,
            epoch=fence.epoch,
            found=f"epoch {self.fence.epoch}",
        )

    def wrong_stage(self, wanted: str, *needed: Stage, do: str = DECIDE_AGAIN) -> WrongStage:
        """The error to raise for a command in the wrong stage."""
        return WrongStage(
            self.attempt_id,
            wanted=wanted,
            found=self.stage.value,
            needed=" or ".join(stage.value for stage in needed),
            do=do,
        )


def evolve(recovery: Recovery | None, event: events.AnyEvent) -> Recovery:
    """The attempt after this event. Never refuses, except where nothing can have happened: raises
    `CorruptEvent` for a stream that does not begin with its grant."""
    if isinstance(event, events.LeaseGranted):
        return _granted(event)
    if recovery is None:
        raise _without_grant(event)
    version = event.originator_version
    match event:
        case events.LeaseExpired():
            return _expired(recovery, event)
        case events.Seized():
            return replace(recovery, version=version, fence=event.fence)
        case events.CheckpointReloaded():
            return _reloaded(recovery, event)
        case events.Replayed():
            return replace(
                recovery,
                version=version,
                stage=Stage.REPLAYED,
                replayed=event,
                try_count=0,
                waits_since=None,
            )
        case events.ReadyForDispatch():
            return replace(recovery, version=version, stage=Stage.READY, ready=event)
        case events.Dispatched():
            return _dispatched(recovery, event)
        case events.Confirmed():
            return replace(
                recovery,
                version=version,
                is_confirmed=True,
                undecoded_since=None,
                undecoded_count=0,
            )
        case events.StepFailed() if event.error_class == events.CODEC_MISSING and event.waits_since:
            return replace(
                recovery,
                version=version,
                undecoded_since=recovery.undecoded_since or event.waits_since,
                undecoded_count=recovery.undecoded_count + 1,
            )
        case events.StepFailed():
            waits_since = event.waits_since or recovery.waits_since
            return replace(
                recovery, version=version, try_count=event.try_count, waits_since=waits_since
            )
        case events.Abandoned(why=events.AbandonReason.RENEWED_LATE):
            return _held_on(recovery, event)
        case events.Quarantined():
            return replace(recovery, version=version, stage=Stage.QUARANTINED, quarantined=event)
        case events.QuarantineLifted():
            return _lifted(recovery, event)
        case events.Resumed():
            return _reopened(recovery, version, event.fence, lifted=None)
        case events.StaleWriteRefused():
            return replace(
                recovery,
                version=version,
                refused=recovery.refused | {(event.fence.epoch, event.write)},
            )
        case events.LeaseEnded(ending=events.Ending.WAITING):
            return replace(recovery, version=version, stage=Stage.WAITING, ended=event)
        case events.LeaseEnded() | events.Abandoned():
            return replace(recovery, version=version, stage=Stage.ENDED, ended=event)
        case _:
            assert_never(event)


def fold(recovery: Recovery, happened: Iterable[events.AnyEvent]) -> Recovery:
    """The attempt after these events."""
    return reduce(evolve, happened, recovery)


def project(recovery: Recovery | None, happened: Iterable[Any]) -> Recovery | None:
    """Fold a stream, in the form that the library's repository requires."""
    return reduce(evolve, happened, recovery)


def _without_grant(event: events.RecoveryEvent) -> CorruptEvent:
    """The log refuses gaps and only `grant` makes version 1, so no journal program wrote this
    stream."""
    return CorruptEvent(
        event.originator_id,
        version=event.originator_version,
        tag=events.tag_of(event),
        position=None,
        reason="a stream that does not begin with its grant",
    )


def _granted(event: events.LeaseGranted) -> Recovery:
    return Recovery(
        attempt_id=event.originator_id,
        version=event.originator_version,
        stage=Stage.HELD,
        granted=event,
        holder=event.holder,
        fence=event.fence,
        code_version=event.code_version,
        newest_writer=event.fence.epoch,
    )


def _expired(recovery: Recovery, event: events.LeaseExpired) -> Recovery:
    """A loss begins a recovery; hand-backs and fleet-wide losses are no evidence against the
    run."""
    progress = event.lease.progress
    come = (progress.ordinal, progress.checkpoint_count) if progress else (0, 0)
    recoveries_without_progress = fleet_losses_without_progress = 0
    if come <= recovery.best_progress:
        recoveries_without_progress = recovery.recoveries_without_progress + _is_crash(event)
        fleet_losses_without_progress = recovery.fleet_losses_without_progress + event.is_fleet_wide
    return replace(
        recovery,
        version=event.originator_version,
        stage=Stage.EXPIRED,
        fence=event.fence or recovery.fence,
        # A foreign lease that was renewed late may have another epoch than the one last granted.
        newest_writer=max(recovery.newest_writer, event.lease.fence.epoch),
        recovery_no=event.recovery_no,
        recoveries_without_progress=recoveries_without_progress,
        fleet_losses_without_progress=fleet_losses_without_progress,
        best_progress=max(come, recovery.best_progress),
        lost=event,
        lifted=None,
        is_resumed=False,
        **UNSTARTED,
    )


def _reloaded(recovery: Recovery, event: events.CheckpointReloaded) -> Recovery:
    """The writer of an adopted tip is trusted from now on, whichever epoch that is."""
    return replace(
        recovery,
        version=event.originator_version,
        stage=Stage.RELOADED,
        reloaded=event,
        newest_writer=max(recovery.newest_writer, event.newest_epoch or 0),
        try_count=0,
        waits_since=None,
    )


def _is_crash(event: events.LeaseExpired) -> bool:
    return event.loss is not LossReason.HANDED_BACK and not event.is_fleet_wide


def _held_on(recovery: Recovery, event: events.Abandoned) -> Recovery:
    """The worker was alive all the time, so what counted as its crash no longer counts."""
    was_counted = recovery.lost is not None and _is_crash(recovery.lost)
    return replace(
        recovery,
        version=event.originator_version,
        stage=Stage.HELD,
        fence=event.fence or recovery.fence,
        recoveries_without_progress=max(recovery.recoveries_without_progress - was_counted, 0),
    )


def _dispatched(recovery: Recovery, event: events.Dispatched) -> Recovery:
    return replace(
        recovery,
        version=event.originator_version,
        stage=Stage.HELD,
        holder=event.holder,
        fence=event.fence,
        newest_writer=max(recovery.newest_writer, event.fence.epoch),
        dispatch_id=event.dispatch_id,
        is_confirmed=False,
        ended=None,
    )


def _lifted(recovery: Recovery, event: events.QuarantineLifted) -> Recovery:
    """A restart from the input is written into the store under the person's own fence."""
    cause = recovery.quarantined.cause if recovery.quarantined else None
    is_any_code = cause is events.QuarantineCause.CODE_CHANGED and event.option in WAIVING
    is_written = event.option is events.LiftOption.RESTART
    opened = _reopened(recovery, event.originator_version, event.fence, lifted=event.option)
    return replace(
        opened,
        code_version="" if is_any_code else recovery.code_version,
        newest_writer=event.fence.epoch if is_written else recovery.newest_writer,
    )


def _reopened(
    recovery: Recovery, version: int, fence: Fence, *, lifted: events.LiftOption | None
) -> Recovery:
    # After a person discarded the reported progress, later progress is not measured by it.
    is_set_back = lifted in WAIVING
    return replace(
        recovery,
        version=version,
        stage=Stage.EXPIRED,
        fence=fence,
        lifted=lifted,
        is_resumed=lifted is None,
        recoveries_without_progress=0,
        fleet_losses_without_progress=0,
        best_progress=(0, 0) if is_set_back else recovery.best_progress,
        quarantined=None,
        undecoded_since=None,
        undecoded_count=0,
        ended=None,
        **UNSTARTED,
    )
