"""The commands of a person: lift a quarantine, resume a waiting attempt, cancel."""

from recovery_journal.domain.commands.pipeline import abandon
from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    Ending,
    LeaseEnded,
    LiftOption,
    QuarantineLifted,
    Resumed,
)
from recovery_journal.domain.lease import Fence
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery, Stage


def lift(
    recovery: Recovery, decision: Decision, option: LiftOption, fence: Fence
) -> tuple[AnyEvent, ...]:
    """Let a quarantined attempt proceed by the option that a person chose."""
    if recovery.stage in RECOVERING and recovery.lifted is option:
        return ()
    recovery.require("lift the quarantine", Stage.QUARANTINED)
    assert recovery.quarantined is not None
    if option not in recovery.quarantined.options:
        raise InvalidInput(
            f"the option to lift attempt {recovery.attempt_id!r}",
            found=repr(option.value),
            needed=" or ".join(recovery.quarantined.options),
            do=f"choose what may follow {recovery.quarantined.cause.value}",
        )
    recovery.require_newer("lift the quarantine", fence)
    return recovery.emit(QuarantineLifted, decision, option=option, fence=fence)


def resume(recovery: Recovery, decision: Decision, fence: Fence) -> tuple[AnyEvent, ...]:
    """Let a waiting attempt proceed, as a person decided."""
    if recovery.stage in RECOVERING and recovery.is_resumed:
        return ()
    recovery.require("resume the attempt", Stage.WAITING)
    recovery.require_newer("resume the attempt", fence)
    return recovery.emit(
        Resumed,
        decision,
        fence=fence,
        kind=recovery.granted.kind,
        tenant=recovery.granted.tenant,
    )


def cancel(recovery: Recovery, decision: Decision) -> tuple[AnyEvent, ...]:
    """End the attempt in whatever stage it is, as a person decided."""
    if recovery.stage is Stage.ENDED:
        match recovery.ended:
            case LeaseEnded(ending=Ending.CANCELLED) | Abandoned(why=AbandonReason.CANCELLED):
                return ()
        open_stages = [stage for stage in Stage if stage is not Stage.ENDED]
        raise recovery.wrong_stage("cancel", *open_stages, do="it has ended already")
    if recovery.stage in (*RECOVERING, Stage.READY):
        return abandon(recovery, decision, AbandonReason.CANCELLED)
    return recovery.emit(LeaseEnded, decision, ending=Ending.CANCELLED, fence=recovery.fence)
