"""A run that no machine can continue: waits, refusals, and against whom it counts."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind, usable
from recovery_journal.domain.commands.pipeline import lose_tip, make_ready, reload
from recovery_journal.domain.commands.quarantine import quarantine_missing_version
from recovery_journal.domain.commands.requeue import requeue, requeue_for_codec, requeue_for_reader
from recovery_journal.domain.errors import (
    CheckpointTooLarge,
    CheckpointTooNew,
    PayloadCorrupt,
    WrongStage,
)
from recovery_journal.domain.events import (
    AnyEvent,
    CheckpointReloaded,
    LeaseExpired,
    LiftOption,
    QuarantineCause,
    Quarantined,
    StepFailed,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage, fold
from tests.domain.histories import (
    STANDING,
    Happening,
    dispatched,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    ready,
    recovered,
    reloaded,
    replayed,
    resumed,
    seized,
    standing_at,
    step_failed,
)
from tests.domain.specimens import (
    NOW,
    checkpoint,
    decision,
    fence,
    lease_view,
    problem,
    run_input,
    run_steps,
)

POLICY = Policy(version_wait_s=3600)
HOUR = timedelta(hours=1)
TOO_NEW = problem(ProblemKind.TOO_NEW)


def reload_after(
    *past: Happening, tip: Checkpoint | CheckpointProblem, now: datetime = NOW
) -> AnyEvent:
    (event,) = reload(given(*past), decision(), tip, policy=POLICY, now=now)
    return event


def cause_of(event: AnyEvent) -> QuarantineCause:
    assert isinstance(event, Quarantined)
    return event.cause


# Too new -------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_too_new_is_left_to_a_newer_sweeper() -> None:
    event = reload_after(granted(), expired(), tip=TOO_NEW)

    assert isinstance(event, StepFailed)
    assert (event.error_class, event.waits_since) == ("CheckpointTooNew", NOW)
    assert event.retry_at == NOW + timedelta(seconds=1)


def test_every_try_of_an_older_sweeper_waits_for_longer_and_since_the_first() -> None:
    first = step_failed(1, waits_since=NOW)

    event = reload_after(granted(), expired(), first, tip=TOO_NEW, now=NOW + HOUR / 2)

    assert isinstance(event, StepFailed)
    assert (event.try_count, event.waits_since) == (2, NOW)


def test_after_the_wait_a_checkpoint_that_is_too_new_is_a_persons_matter() -> None:
    past = (granted(), expired(), step_failed(1, waits_since=NOW))

    early = reload_after(*past, tip=TOO_NEW, now=NOW + HOUR - timedelta(seconds=1))
    late = reload_after(*past, tip=TOO_NEW, now=NOW + HOUR)

    assert isinstance(early, StepFailed)
    assert cause_of(late) is QuarantineCause.TOO_NEW


@pytest.mark.parametrize(
    "between",
    [
        (reloaded(), replayed(), ready(), dispatched(), expired(4, lost_epoch=3, recovery_no=2)),
        (quarantined(QuarantineCause.TOO_NEW), lifted(LiftOption.RETRY)),
    ],
)
def test_the_wait_begins_again_once_a_program_could_read_it_or_a_person_decided(
    between: tuple[Happening, ...],
) -> None:
    past = (granted(), expired(), step_failed(1, waits_since=NOW), *between)

    event = reload_after(*past, tip=TOO_NEW, now=NOW + 9 * HOUR)

    assert isinstance(event, StepFailed)
    assert event.waits_since == NOW + 9 * HOUR


def test_another_failure_in_between_does_not_end_the_wait() -> None:
    past = (granted(), expired(), step_failed(1, waits_since=NOW), step_failed(2))

    assert cause_of(reload_after(*past, tip=TOO_NEW, now=NOW + HOUR)) is QuarantineCause.TOO_NEW


def test_a_sweeper_that_takes_over_before_the_replay_and_is_too_old_waits_too() -> None:
    (event,) = lose_tip(standing_at(Stage.RELOADED), decision(), TOO_NEW, policy=POLICY, now=NOW)

    assert isinstance(event, StepFailed)
    assert (event.failed_step, event.waits_since) == (RecoveryStep.REPLAY, NOW)


def test_a_seizure_does_not_end_the_wait() -> None:
    past = (granted(), expired(), step_failed(1, waits_since=NOW), seized(3, from_epoch=2))

    assert cause_of(reload_after(*past, tip=TOO_NEW, now=NOW + HOUR)) is QuarantineCause.TOO_NEW


# Too large -----------------------------------------------------------------------------------


def test_a_checkpoint_above_the_limit_is_quarantined_and_its_parent_offered() -> None:
    event = reload_after(granted(), expired(), tip=problem(ProblemKind.TOO_LARGE))

    assert cause_of(event) is QuarantineCause.TOO_LARGE
    assert isinstance(event, Quarantined)
    assert LiftOption.PARENT in event.options


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ProblemKind.TOO_NEW, CheckpointTooNew),
        (ProblemKind.TOO_LARGE, CheckpointTooLarge),
        (ProblemKind.CORRUPT, PayloadCorrupt),
        (ProblemKind.MISSING, PayloadCorrupt),
    ],
)
def test_a_caller_that_needs_a_tip_learns_why_it_cannot_be_used(
    kind: ProblemKind, error: type[Exception]
) -> None:
    assert usable(checkpoint()) == checkpoint()

    with pytest.raises(error, match=f"the state is {kind.value}"):
        usable(problem(kind))


# Foreign -------------------------------------------------------------------------------------

FOREIGN_STEP = tuple(replace(step, epoch=9) for step in run_steps(4, 5))
FOREIGN_TIPS = [
    checkpoint(written_by_epoch=9),
    checkpoint(tail=FOREIGN_STEP),
    checkpoint(tail=(FOREIGN_STEP[0], *run_steps(5, 5))),
    run_input(tail=tuple(replace(step, epoch=9) for step in run_steps(1, 1))),
]


@pytest.mark.parametrize("tip", FOREIGN_TIPS)
def test_a_tip_that_a_newer_epoch_than_the_lost_one_wrote_is_quarantined(tip: Checkpoint) -> None:
    event = reload_after(granted(), expired(), tip=tip)

    assert cause_of(event) is QuarantineCause.FOREIGN
    assert isinstance(event, Quarantined)
    assert "epoch 9" in event.explanation
    assert "epoch 1 " in event.explanation


@pytest.mark.parametrize(
    "past",
    [
        (granted(), *recovered(lost_epoch=1, recovery_no=1), expired(4, lost_epoch=3)),
        (granted(3), expired(4, lost_epoch=3)),
        (granted(3), resumed(4)),
    ],
)
def test_what_the_holders_of_this_attempt_and_of_earlier_ones_wrote_is_not_foreign(
    past: tuple[Happening, ...],
) -> None:
    tip = checkpoint(written_by_epoch=1, tail=tuple(replace(s, epoch=3) for s in run_steps(4, 5)))

    event = reload_after(*past, tip=tip)

    assert isinstance(event, CheckpointReloaded)
    assert event.newest_epoch == 3


def test_the_fence_of_a_sweeper_is_no_writer() -> None:
    event = reload_after(granted(), expired(7), tip=checkpoint(written_by_epoch=7))

    assert cause_of(event) is QuarantineCause.FOREIGN


def test_whose_writing_a_person_accepted_is_trusted_from_then_on() -> None:
    tip = checkpoint(written_by_epoch=900)
    past = (
        granted(),
        expired(),
        quarantined(QuarantineCause.FOREIGN),
        lifted(LiftOption.ACCEPT_TIP),
    )

    event = reload_after(*past, tip=tip)
    later = (reloaded(tip, newest_epoch=900), replayed(), ready(), dispatched(4))

    assert isinstance(event, CheckpointReloaded)
    again = reload_after(*past, *later, expired(5, lost_epoch=4, recovery_no=2), tip=tip)
    assert isinstance(again, CheckpointReloaded)


def test_trying_again_trusts_no_other_writer() -> None:
    past = (granted(), expired(), quarantined(QuarantineCause.FOREIGN), lifted(LiftOption.RETRY))

    event = reload_after(*past, tip=checkpoint(written_by_epoch=9))

    assert cause_of(event) is QuarantineCause.FOREIGN


def test_the_mark_of_a_restart_is_written_under_the_persons_fence() -> None:
    past = (granted(), expired(), quarantined(), lifted(LiftOption.RESTART, epoch=6))
    marker = checkpoint(tail_count=0, written_by_epoch=6, state_digest=None)

    assert isinstance(reload_after(*past, tip=marker), CheckpointReloaded)


@pytest.mark.parametrize(
    ("tip", "stage"),
    [(checkpoint(is_terminal=True), Stage.ENDED), (checkpoint(is_waiting=True), Stage.WAITING)],
)
def test_what_would_not_be_dispatched_anyway_is_not_quarantined_as_foreign(
    tip: Checkpoint, stage: Stage
) -> None:
    past = (granted(), expired())

    event = reload_after(*past, tip=replace(tip, written_by_epoch=9))

    assert fold(given(*past), [event]).stage is stage


# Code changed --------------------------------------------------------------------------------


def test_no_worker_of_its_code_version_came_so_a_person_decides() -> None:
    (event,) = quarantine_missing_version(standing_at(Stage.READY), decision(), POLICY)

    assert cause_of(event) is QuarantineCause.CODE_CHANGED
    assert isinstance(event, Quarantined)
    assert "'1.4'" in event.explanation


def test_missing_a_version_is_idempotent_and_elsewhere_it_is_refused() -> None:
    missed = given(*STANDING[Stage.READY], quarantined(QuarantineCause.CODE_CHANGED))

    assert quarantine_missing_version(missed, decision(), POLICY) == ()
    for stage in set(Stage) - {Stage.READY}:
        with pytest.raises(WrongStage, match="needed ready"):
            quarantine_missing_version(standing_at(stage), decision(), POLICY)


@pytest.mark.parametrize(
    ("option", "needed"),
    [(LiftOption.RETRY, "1.4"), (LiftOption.ACCEPT_TIP, ""), (LiftOption.RESTART, "")],
)
def test_a_person_may_let_any_code_version_proceed_for_good(
    option: LiftOption, needed: str
) -> None:
    recovery = given(
        *STANDING[Stage.READY],
        quarantined(QuarantineCause.CODE_CHANGED),
        lifted(option),
        reloaded(),
        replayed(),
    )
    later = given(
        *STANDING[Stage.READY],
        quarantined(QuarantineCause.CODE_CHANGED),
        lifted(option),
        reloaded(),
        replayed(),
        ready(),
        *recovered(lost_epoch=4, recovery_no=2)[:3],
    )

    for attempt in (recovery, later):
        (event,) = make_ready(attempt, decision(), now=NOW)
        assert event.code_version == needed  # type: ignore[union-attr]  # a ReadyForDispatch


# A claimer that cannot -----------------------------------------------------------------------


def given_back(recovery: Recovery, **changes: Any) -> tuple[AnyEvent, ...]:
    settings: dict[str, Any] = {
        "lease": lease_view(recovery.fence.epoch),
        "fence": fence(recovery.fence.epoch + 1),
        "error_class": "DeadlinePassed",
        "message": "no answer",
        "policy": POLICY,
        "now": NOW,
        **changes,
    }
    return requeue(recovery, decision(), RecoveryStep.REPLAY, **settings)


def test_a_claimer_that_cannot_fold_gives_the_attempt_to_the_next_sweeper() -> None:
    recovery = given(granted(), *recovered(lost_epoch=1, recovery_no=1))

    events = given_back(recovery)

    lost, failed = events
    assert isinstance(lost, LeaseExpired)
    assert isinstance(failed, StepFailed)
    assert (lost.loss, lost.fence) == (LossReason.REPORTED, fence(4))
    assert (failed.error_class, failed.failed_step) == ("DeadlinePassed", RecoveryStep.REPLAY)
    assert fold(recovery, events).stage is Stage.EXPIRED


def test_no_claimer_quarantines_at_once_and_none_tries_for_ever() -> None:
    recovery = given(
        granted(), *recovered(lost_epoch=1, recovery_no=1, loss=LossReason.HANDED_BACK)
    )
    waits = []
    while True:
        events = given_back(recovery)
        recovery = fold(recovery, events)
        if recovery.stage is Stage.QUARANTINED:
            break
        failed = events[-1]
        assert isinstance(failed, StepFailed)
        waits.append((failed.retry_at - NOW).total_seconds())
        epoch = recovery.fence.epoch
        for happening in (reloaded(), replayed(), ready(), dispatched(epoch + 1)):
            recovery = fold(recovery, [happening(recovery.attempt_id, recovery.version + 1)])

    assert waits == [1, 2, 4, 8]
    assert recovery.quarantined is not None
    assert recovery.quarantined.cause is QuarantineCause.RAISED
    assert recovery.quarantined.explanation == "DeadlinePassed"
    assert recovery.quarantined.message.startswith("no answer")


def test_what_was_not_even_tried_counts_for_nothing() -> None:
    recovery = given(granted(), *recovered(lost_epoch=1, recovery_no=1))
    before = recovery.recoveries_without_progress

    after = fold(recovery, given_back(recovery, is_tried=False))

    assert after.recoveries_without_progress == before
    assert after.stage is Stage.EXPIRED


def test_a_claimer_that_is_too_old_leaves_it_to_a_newer_one_and_counts_nothing() -> None:
    recovery = given(granted(), *recovered(lost_epoch=1, recovery_no=1))

    events = requeue_for_reader(
        recovery,
        decision(),
        lease=lease_view(3),
        fence=fence(4),
        message="too new",
        policy=POLICY,
        now=NOW,
    )

    failed = events[-1]
    assert isinstance(failed, StepFailed)
    assert (failed.waits_since, failed.try_count) == (NOW, 2)
    assert (
        fold(recovery, events).recoveries_without_progress == recovery.recoveries_without_progress
    )


@pytest.mark.parametrize("act", [requeue, requeue_for_reader, requeue_for_codec])
def test_requeueing_is_idempotent(act: Any) -> None:
    recovery = standing_at(Stage.EXPIRED)
    settings: dict[str, Any] = {
        "lease": lease_view(1),
        "fence": fence(3),
        "message": "",
        "policy": POLICY,
        "now": NOW,
    }
    if act is requeue:
        settings |= {"step": RecoveryStep.REPLAY, "error_class": "OSError"}

    assert act(recovery, decision(), **settings) == ()


def test_a_crash_loop_names_what_the_last_loss_was_for() -> None:
    past: list[Happening] = [granted()]
    for number in range(1, 6):
        past += recovered(lost_epoch=2 * number - 1, recovery_no=number, reason="out of memory")
    past = past[:-4]

    event = reload_after(*past, tip=checkpoint())

    assert cause_of(event) is QuarantineCause.CRASH_LOOP
    assert isinstance(event, Quarantined)
    assert event.explanation.endswith("; the last: out of memory")
