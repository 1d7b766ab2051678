"""Recoveries in a row without progress: which count, and what ends the row."""

import pytest

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.commands.pipeline import reload
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    LeaseEnded,
    LiftOption,
    QuarantineCause,
    Quarantined,
    StepFailed,
)
from recovery_journal.domain.lease import LossReason, Progress
from recovery_journal.domain.policy import Policy
from tests.domain.histories import (
    Happening,
    abandoned,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    recovered,
)
from tests.domain.specimens import NOW, checkpoint, decision, fence, problem, progress

POLICY = Policy()


def reload_after(
    *past: Happening, tip: Checkpoint | CheckpointProblem, policy: Policy = POLICY
) -> AnyEvent:
    """The one event of the reload."""
    (event,) = reload(given(*past), decision(), tip, policy=policy, now=NOW)
    return event


def cause_of(event: AnyEvent) -> QuarantineCause:
    assert isinstance(event, Quarantined)
    return event.cause


def losses(count: int, *, reported: Progress | None = None) -> list[Happening]:
    """A grant and this many losses, all but the last recovered; the last has epoch 2 * count."""
    past: list[Happening] = [granted()]
    for number in range(1, count):
        past += recovered(lost_epoch=2 * number - 1, recovery_no=number, reported=reported)
    past.append(expired(2 * count, lost_epoch=2 * count - 1, recovery_no=count, reported=reported))
    return past


@pytest.mark.parametrize("count", range(1, POLICY.crash_loop_count))
def test_fewer_fruitless_recoveries_than_the_limit_proceed(count: int) -> None:
    assert isinstance(reload_after(*losses(count), tip=checkpoint()), CheckpointReloaded)


def test_the_nth_recovery_in_a_row_without_progress_is_a_crash_loop() -> None:
    event = reload_after(*losses(POLICY.crash_loop_count), tip=checkpoint())

    assert cause_of(event) is QuarantineCause.CRASH_LOOP


def test_progress_that_stands_still_is_a_crash_loop_too() -> None:
    past = losses(POLICY.crash_loop_count + 1, reported=progress(5, 1))

    # The first of these losses came with progress, so only the others count.
    assert cause_of(reload_after(*past, tip=checkpoint())) is QuarantineCause.CRASH_LOOP
    assert given(*past[:-5]).recoveries_without_progress == POLICY.crash_loop_count - 1


@pytest.mark.parametrize("better", [progress(6, 1), progress(5, 2)])
def test_progress_begins_the_count_again(better: Progress) -> None:
    past = losses(POLICY.crash_loop_count, reported=progress(5, 1))
    number = POLICY.crash_loop_count
    past[-1] = expired(2 * number, lost_epoch=2 * number - 1, recovery_no=number, reported=better)

    recovery = given(*past)

    assert recovery.recoveries_without_progress == 0
    assert recovery.best_progress == (better.ordinal, better.checkpoint_count)


@pytest.mark.parametrize(
    "loss", [{"loss": LossReason.HANDED_BACK}, {"is_fleet_wide": True}], ids=["handed", "fleet"]
)
def test_hand_backs_and_fleet_wide_losses_are_no_crashes(loss: dict[str, object]) -> None:
    past: list[Happening] = [granted()]
    for number in range(1, 2 * POLICY.crash_loop_count):
        past += recovered(lost_epoch=2 * number - 1, recovery_no=number, **loss)

    assert given(*past).recoveries_without_progress == 0


def test_a_hand_back_between_crashes_does_not_begin_the_count_again() -> None:
    past = losses(POLICY.crash_loop_count - 1)[:-1]
    epoch = given(*past).fence.epoch

    recovery = given(
        *past, expired(epoch + 1, lost_epoch=epoch, recovery_no=9, loss=LossReason.HANDED_BACK)
    )

    assert recovery.recoveries_without_progress == given(*past).recoveries_without_progress > 0


@pytest.mark.parametrize(
    "loss", [LossReason.TTL, LossReason.SESSION_LOST, LossReason.REPORTED, LossReason.STALLED]
)
def test_every_other_loss_without_progress_counts(loss: LossReason) -> None:
    assert given(granted(), expired(loss=loss)).recoveries_without_progress == 1


def test_a_person_who_lifts_a_crash_loop_begins_the_count_again() -> None:
    past = (
        *losses(POLICY.crash_loop_count),
        quarantined(QuarantineCause.CRASH_LOOP),
        lifted(LiftOption.RETRY, epoch=99),
    )

    assert isinstance(reload_after(*past, tip=checkpoint()), CheckpointReloaded)


def test_after_a_restart_progress_is_measured_from_the_beginning() -> None:
    recovery = given(
        granted(),
        expired(reported=progress(100, 4)),
        quarantined(QuarantineCause.CORRUPT),
        lifted(LiftOption.RESTART),
        *recovered(lost_epoch=3, recovery_no=2, reported=progress(10)),
    )

    assert recovery.recoveries_without_progress == 0


@pytest.mark.parametrize(
    ("tip", "expected"),
    [
        (checkpoint(is_terminal=True), Abandoned),
        (checkpoint(is_waiting=True), LeaseEnded),
        (problem(ProblemKind.UNAVAILABLE), StepFailed),
    ],
)
def test_a_crash_loop_is_no_reason_to_quarantine_what_would_not_be_dispatched(
    tip: Checkpoint | CheckpointProblem, expected: type[AnyEvent]
) -> None:
    event = reload_after(*losses(POLICY.crash_loop_count), tip=tip)

    assert isinstance(event, expected)


def test_late_renewals_are_no_crashes() -> None:
    past = [granted()]
    for number in range(1, POLICY.crash_loop_count + 1):
        past += [
            expired(None, recovery_no=number),
            abandoned(AbandonReason.RENEWED_LATE, recovery_no=number, fence=fence(1)),
        ]

    event = reload_after(*past, expired(2, recovery_no=9), tip=checkpoint())

    assert isinstance(event, CheckpointReloaded)


@pytest.mark.parametrize("count", [19, 20])
def test_losses_of_the_fleet_are_excused_and_not_for_ever(count: int) -> None:
    past: list[Happening] = [granted()]
    for number in range(1, count):
        past += recovered(lost_epoch=2 * number - 1, recovery_no=number, is_fleet_wide=True)
    past.append(expired(2 * count, lost_epoch=2 * count - 1, is_fleet_wide=True))

    event = reload_after(*past, tip=checkpoint())

    assert given(*past).recoveries_without_progress == 0
    if count < POLICY.excuse_limit:
        assert isinstance(event, CheckpointReloaded)
    else:
        assert cause_of(event) is QuarantineCause.CRASH_LOOP
        assert isinstance(event, Quarantined)
        assert "20 losses of the fleet in a row without progress" in event.explanation


def test_progress_begins_the_excuses_again() -> None:
    fleet = {"is_fleet_wide": True}
    recovery = given(
        granted(),
        *recovered(lost_epoch=1, recovery_no=1, **fleet),
        *recovered(lost_epoch=3, recovery_no=2, reported=progress(4), **fleet),
    )

    assert recovery.fleet_losses_without_progress == 0
