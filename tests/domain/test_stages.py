"""Every command at every stage: it acts, it stays quiet, or it refuses and says why."""

from collections.abc import Callable

import pytest

from recovery_journal.domain.commands.lease import confirm, dispatch, end, refuse, seize, time_out
from recovery_journal.domain.commands.operator import cancel, lift, resume
from recovery_journal.domain.commands.pipeline import (
    abandon,
    expire,
    lose_tip,
    make_ready,
    reload,
    replay,
)
from recovery_journal.domain.commands.quarantine import quarantine_diverged
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    Ending,
    LiftOption,
    SeizeReason,
    WriteKind,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import RECOVERING, Recovery, Stage
from tests.domain.histories import STANDING, given, standing_at
from tests.domain.specimens import (
    NOW,
    checkpoint,
    decision,
    fence,
    holder,
    lease_view,
    outcome,
    problem,
)

Command = Callable[[Recovery], tuple[AnyEvent, ...]]
EVERYWHERE = tuple(Stage)

COMMANDS: dict[str, tuple[Command, tuple[Stage, ...], tuple[Stage, ...]]] = {
    # name: (the command, the stages in which it acts, the stages in which it has no effect)
    "expire": (
        lambda r: expire(r, decision(), lease=lease_view(9), loss=LossReason.TTL, fence=fence(10)),
        (Stage.HELD,),
        (),
    ),
    "seize": (
        lambda r: seize(r, decision(), fence=fence(9), why=SeizeReason.SWEEPER_LOST),
        RECOVERING,
        (),
    ),
    "reload": (
        lambda r: reload(r, decision(), checkpoint(7), policy=Policy(), now=NOW),
        (Stage.EXPIRED,),
        (),
    ),
    "lose_tip": (
        lambda r: lose_tip(r, decision(), problem(), policy=Policy(), now=NOW),
        (Stage.RELOADED,),
        (),
    ),
    "replay": (
        lambda r: replay(r, decision(), outcome(checkpoint(7)), policy=Policy(), now=NOW),
        (Stage.RELOADED,),
        (),
    ),
    "make_ready": (
        lambda r: make_ready(r, decision(), now=NOW),
        (Stage.REPLAYED,),
        (Stage.READY,),
    ),
    "fail_step": (
        lambda r: fail_step(
            r,
            decision(),
            RecoveryStep.REPLAY,
            error_class="OSError",
            message="",
            policy=Policy(),
            now=NOW,
        ),
        RECOVERING,
        (),
    ),
    "abandon": (
        lambda r: abandon(r, decision(), AbandonReason.CANCELLED),
        (*RECOVERING, Stage.READY),
        (),
    ),
    "dispatch": (
        lambda r: dispatch(
            r, decision(), holder=holder("w-2"), fence=fence(9), ttl_s=30.0, dispatch_id="claim-9"
        ),
        (Stage.READY,),
        (),
    ),
    "confirm": (lambda r: confirm(r, decision(), WriteKind.RUN_STEP, 1), (Stage.HELD,), ()),
    "end": (lambda r: end(r, decision(), Ending.FAILED), (Stage.HELD,), ()),
    "diverge": (
        lambda r: quarantine_diverged(
            r, decision(), explanation="", found="cs1:1", expected="cs1:2"
        ),
        (Stage.HELD,),
        (),
    ),
    "time_out": (
        lambda r: time_out(r, decision(), Policy()),
        tuple(stage for stage in Stage if stage not in (Stage.ENDED, Stage.QUARANTINED)),
        (Stage.ENDED, Stage.QUARANTINED),
    ),
    "refuse": (lambda r: refuse(r, decision(), WriteKind.HEARTBEAT, fence(1)), EVERYWHERE, ()),
    "lift": (
        lambda r: lift(r, decision(), LiftOption.RETRY, fence(9)),
        (Stage.QUARANTINED,),
        (),
    ),
    "resume": (lambda r: resume(r, decision(), fence(9)), (Stage.WAITING,), ()),
    "cancel": (
        lambda r: cancel(r, decision()),
        tuple(stage for stage in Stage if stage is not Stage.ENDED),
        (),
    ),
}


def cases(answer: str) -> list[tuple[str, Stage]]:
    """The (command, stage) pairs with this answer."""
    found = []
    for name, (_, acting, quiet) in COMMANDS.items():
        for stage in Stage:
            known = "acts" if stage in acting else "quiet" if stage in quiet else "refused"
            if known == answer:
                found.append((name, stage))
    return found


def test_the_histories_reach_every_stage() -> None:
    assert {stage: given(*past).stage for stage, past in STANDING.items()} == {
        stage: stage for stage in Stage
    }


@pytest.mark.parametrize(("name", "stage"), cases("acts"))
def test_a_command_in_its_stage_is_one_event(name: str, stage: Stage) -> None:
    recovery = standing_at(stage)

    (event,) = COMMANDS[name][0](recovery)

    assert event.originator_id == recovery.attempt_id
    assert event.originator_version == recovery.version + 1
    assert (event.run_id, event.event_id) == (recovery.run_id, "decision-1")


@pytest.mark.parametrize(("name", "stage"), cases("quiet"))
def test_a_command_for_what_is_so_already_is_idempotent(name: str, stage: Stage) -> None:
    assert COMMANDS[name][0](standing_at(stage)) == ()


@pytest.mark.parametrize(("name", "stage"), cases("refused"))
def test_a_command_in_a_wrong_stage_is_refused_with_both_stages(name: str, stage: Stage) -> None:
    recovery = standing_at(stage)
    command, acting, _ = COMMANDS[name]

    with pytest.raises(WrongStage) as refusal:
        command(recovery)

    needed = " or ".join(needed.value for needed in Stage if needed in acting)
    assert f"found stage {stage.value}, needed {needed}; " in str(refusal.value)
    assert repr(recovery.attempt_id) in str(refusal.value)
    assert refusal.value.found == stage.value
