"""A person's commands: lift a quarantine, resume a waiting attempt, cancel."""

import pytest

from recovery_journal.domain.commands.operator import cancel, lift, resume
from recovery_journal.domain.decisions import LIFT_OPTIONS
from recovery_journal.domain.errors import InvalidInput, LeaseLost, WrongStage
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    Ending,
    LeaseEnded,
    LiftOption,
    QuarantineCause,
    QuarantineLifted,
    Resumed,
)
from recovery_journal.domain.recovery import Stage, fold
from tests.domain.histories import (
    abandoned,
    ended,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    reloaded,
    resumed,
    standing_at,
)
from tests.domain.specimens import PERSON, decision, fence

PERSONAL = decision("decision-1", PERSON, "checked it")


@pytest.mark.parametrize(
    ("cause", "option"),
    [(cause, option) for cause, options in LIFT_OPTIONS.items() for option in options],
)
def test_a_person_may_choose_any_option_of_the_cause(
    cause: QuarantineCause, option: LiftOption
) -> None:
    recovery = given(granted(), expired(), quarantined(cause))

    events = lift(recovery, PERSONAL, option, fence(3))

    (event,) = events
    assert isinstance(event, QuarantineLifted)
    assert (event.option, event.recorded_by, event.reason) == (option, PERSON, "checked it")
    after = fold(recovery, events)
    assert (after.stage, after.fence, after.lifted) == (Stage.EXPIRED, fence(3), option)
    assert after.quarantined is None


def test_an_option_that_the_cause_does_not_give_is_refused_with_those_it_gives() -> None:
    recovery = given(granted(), expired(), quarantined(QuarantineCause.RAISED))

    with pytest.raises(InvalidInput, match=r"found 'parent', needed retry or restart") as refusal:
        lift(recovery, PERSONAL, LiftOption.PARENT, fence(3))

    assert "'a-1'" in str(refusal.value)
    assert "raised" in str(refusal.value)


def test_lifting_with_the_same_option_again_is_idempotent_until_something_follows() -> None:
    recovery = given(granted(), expired(), quarantined(), lifted(LiftOption.RETRY, epoch=3))

    assert lift(recovery, PERSONAL, LiftOption.RETRY, fence(4)) == ()
    with pytest.raises(WrongStage, match="found stage expired, needed quarantined"):
        lift(recovery, PERSONAL, LiftOption.RESTART, fence(4))


def test_a_second_quarantine_can_be_lifted_as_the_first_was() -> None:
    recovery = given(
        granted(), expired(), quarantined(), lifted(LiftOption.RETRY, epoch=3), quarantined()
    )

    assert len(lift(recovery, PERSONAL, LiftOption.RETRY, fence(4))) == 1


def test_a_waiting_attempt_proceeds_from_the_reload() -> None:
    recovery = standing_at(Stage.WAITING)

    events = resume(recovery, PERSONAL, fence(2))

    (event,) = events
    assert isinstance(event, Resumed)
    assert (event.fence, event.recorded_by) == (fence(2), PERSON)
    after = fold(recovery, events)
    assert (after.stage, after.fence, after.ended) == (Stage.EXPIRED, fence(2), None)


def test_resuming_is_idempotent() -> None:
    recovery = given(granted(), ended(Ending.WAITING), resumed(2))

    assert resume(recovery, PERSONAL, fence(3)) == ()


def test_a_person_cannot_fence_with_an_epoch_that_is_not_newer() -> None:
    with pytest.raises(LeaseLost, match="epoch 1 is void, found epoch 1"):
        resume(standing_at(Stage.WAITING), PERSONAL, fence(1))
    with pytest.raises(LeaseLost, match="epoch 2 is void, found epoch 2"):
        lift(standing_at(Stage.QUARANTINED), PERSONAL, LiftOption.RETRY, fence(2))


@pytest.mark.parametrize("stage", [Stage.HELD, Stage.WAITING, Stage.QUARANTINED])
def test_cancelling_outside_a_recovery_ends_the_lease(stage: Stage) -> None:
    recovery = standing_at(stage)

    events = cancel(recovery, PERSONAL)

    (event,) = events
    assert isinstance(event, LeaseEnded)
    assert (event.ending, event.fence) == (Ending.CANCELLED, recovery.fence)
    assert fold(recovery, events).stage is Stage.ENDED


@pytest.mark.parametrize("stage", [Stage.EXPIRED, Stage.RELOADED, Stage.REPLAYED, Stage.READY])
def test_cancelling_within_a_recovery_abandons_it(stage: Stage) -> None:
    recovery = standing_at(stage)

    events = cancel(recovery, PERSONAL)

    (event,) = events
    assert isinstance(event, Abandoned)
    assert event.why is AbandonReason.CANCELLED
    assert fold(recovery, events).stage is Stage.ENDED


def test_cancelling_is_idempotent_however_it_was_cancelled() -> None:
    held = given(granted(), ended(Ending.CANCELLED))
    recovering = given(granted(), expired(), reloaded(), abandoned(AbandonReason.CANCELLED))

    assert cancel(held, PERSONAL) == ()
    assert cancel(recovering, PERSONAL) == ()


@pytest.mark.parametrize("ending", [Ending.COMPLETED, Ending.FAILED])
def test_what_ended_by_itself_cannot_be_cancelled(ending: Ending) -> None:
    with pytest.raises(WrongStage, match="found stage ended"):
        cancel(given(granted(), ended(ending)), PERSONAL)
