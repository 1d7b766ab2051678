"""The result of each failure: the rows of the failure table that the domain decides."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.commands.lease import seize, time_out
from recovery_journal.domain.commands.operator import resume
from recovery_journal.domain.commands.pipeline import (
    abandon,
    expire,
    lose_tip,
    make_ready,
    reload,
    replay,
)
from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LiftOption,
    QuarantineCause,
    Quarantined,
    Replayed,
    SeizeReason,
    StartPoint,
    StepFailed,
    TipStanding,
)
from recovery_journal.domain.lease import LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage, fold
from recovery_journal.domain.replay import ReplayResult, replay_chain
from tests.domain.histories import (
    Happening,
    abandoned,
    ended,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    reloaded,
    resumed,
    seized,
    standing_at,
    step_failed,
)
from tests.domain.specimens import (
    ATTEMPT_ID,
    NOW,
    chain_at,
    checkpoint,
    decision,
    fence,
    lease_view,
    outcome,
    problem,
    progress,
    run_input,
    run_steps,
)

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


def test_renewed_late_a_foreign_recovery_is_abandoned_and_the_worker_holds_on() -> None:
    recovery = given(granted(), expired(None))

    events = abandon(recovery, decision(), AbandonReason.RENEWED_LATE, lease=lease_view(1))

    after = fold(recovery, events)
    assert (after.stage, after.fence, after.holder) == (Stage.HELD, fence(1), recovery.holder)
    assert after.ended is None


def test_after_a_late_renewal_the_next_loss_continues_in_the_same_stream() -> None:
    recovery = given(
        granted(), expired(None), abandoned(AbandonReason.RENEWED_LATE, fence=fence(1))
    )

    (loss,) = expire(recovery, decision(), lease=lease_view(1), loss=LossReason.TTL, fence=None)

    assert isinstance(loss, LeaseExpired)
    assert (loss.originator_id, loss.originator_version) == (ATTEMPT_ID, 4)
    assert loss.recovery_no == 2


def test_a_second_sweeper_that_was_refused_the_seizure_writes_nothing() -> None:
    recovery = standing_at(Stage.EXPIRED)

    again = expire(
        recovery, decision("decision-2"), lease=lease_view(1), loss=LossReason.TTL, fence=fence(3)
    )

    assert again == ()


@pytest.mark.parametrize("stage", [Stage.EXPIRED, Stage.RELOADED, Stage.REPLAYED])
def test_a_recovery_whose_sweeper_died_proceeds_at_the_stage_found(stage: Stage) -> None:
    recovery = standing_at(stage)

    taken = fold(
        recovery, seize(recovery, decision(), fence=fence(3), why=SeizeReason.SWEEPER_LOST)
    )

    assert (taken.stage, taken.fence, taken.recovery_no) == (stage, fence(3), 1)
    assert (taken.reloaded, taken.replayed) == (recovery.reloaded, recovery.replayed)


@pytest.mark.parametrize("reported", [None, progress(9, 9)])
def test_a_terminal_checkpoint_abandons_the_recovery_as_already_completed(
    reported: Progress | None,
) -> None:
    past = (granted(), expired(reported=reported))

    event = reload_after(*past, tip=checkpoint(is_terminal=True))

    assert isinstance(event, Abandoned)
    assert event.why is AbandonReason.ALREADY_COMPLETED
    assert fold(given(*past), [event]).stage is Stage.ENDED


def test_an_attempt_that_waits_for_a_person_is_not_dispatched_until_resumed() -> None:
    recovery = given(granted(), expired(2))

    waiting = fold(
        recovery, reload(recovery, decision(), checkpoint(is_waiting=True), policy=POLICY, now=NOW)
    )

    assert waiting.stage is Stage.WAITING
    assert isinstance(waiting.ended, LeaseEnded)
    assert waiting.ended.ending is Ending.WAITING
    with pytest.raises(WrongStage, match="found stage waiting"):
        make_ready(waiting, decision(), now=NOW)
    again = fold(waiting, resume(waiting, decision(), fence(3)))
    assert again.stage is Stage.EXPIRED


def test_a_resumed_attempt_is_reloaded_before_anything_else() -> None:
    recovery = given(granted(), ended(Ending.WAITING), resumed(2))

    with pytest.raises(WrongStage, match="found stage expired, needed replayed"):
        make_ready(recovery, decision(), now=NOW)
    (event,) = reload(recovery, decision(), checkpoint(), policy=POLICY, now=NOW)
    assert isinstance(event, CheckpointReloaded)


def test_without_any_checkpoint_the_attempt_restarts_from_its_input() -> None:
    recovery = given(granted(), expired())

    recovery = fold(recovery, reload(recovery, decision(), run_input(), policy=POLICY, now=NOW))
    recovery = fold(
        recovery, replay(recovery, decision(), outcome(run_input()), policy=POLICY, now=NOW)
    )
    recovery = fold(recovery, make_ready(recovery, decision(), now=NOW))

    assert recovery.ready is not None
    assert recovery.ready.start is StartPoint.INPUT


def test_a_restart_that_policy_forbids_is_a_persons_decision() -> None:
    strict = Policy(may_restart=False)
    past = (granted(), expired())

    event = reload_after(*past, tip=run_input(), policy=strict)

    assert cause_of(event) is QuarantineCause.NO_CHECKPOINT
    chosen = (*past, quarantined(QuarantineCause.NO_CHECKPOINT), lifted(LiftOption.RESTART))
    assert isinstance(reload_after(*chosen, tip=run_input(), policy=strict), CheckpointReloaded)


def test_trying_again_is_not_choosing_the_restart_that_policy_forbids() -> None:
    event = reload_after(
        granted(),
        expired(),
        quarantined(QuarantineCause.CRASH_LOOP),
        lifted(LiftOption.RETRY),
        tip=run_input(),
        policy=Policy(may_restart=False),
    )

    assert cause_of(event) is QuarantineCause.NO_CHECKPOINT


def test_policy_says_nothing_about_attempts_with_a_checkpoint() -> None:
    event = reload_after(granted(), expired(), tip=checkpoint(), policy=Policy(may_restart=False))

    assert isinstance(event, CheckpointReloaded)


@pytest.mark.parametrize(
    ("tip", "reported"),
    [
        (checkpoint(3, checkpoint_no=1, tail_count=0), progress(3, 2)),
        (checkpoint(3, checkpoint_no=1, tail_count=1), progress(5, 1)),
        (run_input(tail_count=3), progress(3, 1)),
        (run_input(), progress(1)),
    ],
)
def test_a_tip_behind_the_reported_progress_is_lost(tip: Checkpoint, reported: Progress) -> None:
    event = reload_after(granted(), expired(reported=reported), tip=tip)

    assert cause_of(event) is QuarantineCause.TIP_LOST
    assert isinstance(event, Quarantined)
    assert f"reported run step {reported.ordinal}" in event.explanation
    assert event.ordinal == tip.tip_ordinal


def test_a_checkpoint_that_is_gone_is_lost() -> None:
    event = reload_after(granted(), expired(), tip=problem(ProblemKind.MISSING))

    assert cause_of(event) is QuarantineCause.TIP_LOST


@pytest.mark.parametrize("option", [LiftOption.ACCEPT_TIP, LiftOption.RESTART])
def test_a_person_may_accept_what_the_store_still_shows(option: LiftOption) -> None:
    event = reload_after(
        granted(), expired(reported=progress(9, 2)), quarantined(), lifted(option), tip=checkpoint()
    )

    assert isinstance(event, CheckpointReloaded)
    assert event.standing is TipStanding.UNREPORTED


def test_trying_again_accepts_nothing() -> None:
    event = reload_after(
        granted(),
        expired(reported=progress(9, 2)),
        quarantined(),
        lifted(LiftOption.RETRY),
        tip=checkpoint(),
    )

    assert cause_of(event) is QuarantineCause.TIP_LOST


def test_a_corrupt_checkpoint_is_quarantined_and_its_parent_offered() -> None:
    event = reload_after(granted(), expired(), tip=problem(ProblemKind.CORRUPT))

    assert cause_of(event) is QuarantineCause.CORRUPT
    assert isinstance(event, Quarantined)
    assert LiftOption.PARENT in event.options


def test_the_parent_that_a_person_chose_is_adopted_though_it_is_the_older_state() -> None:
    past = (
        granted(),
        expired(reported=progress(5, 2)),
        quarantined(QuarantineCause.CORRUPT),
        lifted(LiftOption.PARENT),
    )

    event = reload_after(*past, tip=checkpoint(1, checkpoint_no=1, newest_no=2, tail_count=4))

    assert isinstance(event, CheckpointReloaded)
    assert event.to_ordinal == 5


def test_the_parent_must_still_reach_every_reported_run_step() -> None:
    event = reload_after(
        granted(),
        expired(reported=progress(5, 2)),
        quarantined(QuarantineCause.CORRUPT),
        lifted(LiftOption.PARENT),
        tip=checkpoint(1, checkpoint_no=1, newest_no=2, tail_count=3),
    )

    assert cause_of(event) is QuarantineCause.TIP_LOST


def test_an_unavailable_store_is_tried_again_with_growing_waits() -> None:
    waits = []
    for past in ((), (step_failed(1),), (step_failed(1), step_failed(2))):
        event = reload_after(granted(), expired(), *past, tip=problem(ProblemKind.UNAVAILABLE))
        assert isinstance(event, StepFailed)
        assert event.failed_step is RecoveryStep.CHECKPOINT_RELOAD
        assert event.message == "the state is unavailable"
        waits.append(event.retry_at - NOW)

    assert waits == [timedelta(seconds=1), timedelta(seconds=2), timedelta(seconds=4)]


def test_an_unavailable_store_never_quarantines() -> None:
    event = reload_after(
        granted(), expired(), step_failed(1000), tip=problem(ProblemKind.UNAVAILABLE)
    )

    assert isinstance(event, StepFailed)
    assert event.retry_at - NOW == timedelta(seconds=POLICY.backoff_limit_s)


def test_a_diverged_replay_is_quarantined_with_both_digests_and_the_ordinal() -> None:
    report = Progress(ordinal=4, digest=chain_at(9))
    tip = checkpoint(3, tail=run_steps(4, 5))
    recovery = given(granted(), expired(reported=report), reloaded(tip))

    (event,) = replay(
        recovery, decision(), replay_chain(ATTEMPT_ID, tip, report), policy=POLICY, now=NOW
    )

    assert cause_of(event) is QuarantineCause.DIVERGED
    assert isinstance(event, Quarantined)
    assert event.ordinal == 4
    assert (event.found_digest, event.expected_digest) == (chain_at(4), chain_at(9))


def test_a_person_may_accept_the_tip_of_a_diverged_replay() -> None:
    diverged = outcome(result=ReplayResult.DIVERGED, expected_digest=chain_at(9), diverged_at=5)
    recovery = given(
        granted(),
        expired(),
        quarantined(QuarantineCause.DIVERGED),
        lifted(LiftOption.ACCEPT_TIP),
        reloaded(),
    )

    (event,) = replay(recovery, decision(), diverged, policy=POLICY, now=NOW)

    assert isinstance(event, Replayed)
    assert event.digest != event.expected_digest


def test_a_replay_that_raised_is_tried_again_up_to_the_cap() -> None:
    raised = outcome(result=ReplayResult.RAISED, error_class="KeyError", message="'total'")
    recovery = standing_at(Stage.RELOADED)

    found: list[AnyEvent] = []
    while recovery.stage is Stage.RELOADED:
        events = replay(recovery, decision(), raised, policy=Policy(raise_limit=3), now=NOW)
        recovery = fold(recovery, events)
        found += events

    assert [type(event) for event in found] == [StepFailed, StepFailed, Quarantined]
    last = found[-1]
    assert cause_of(last) is QuarantineCause.RAISED
    assert isinstance(last, Quarantined)
    assert (last.explanation, last.message) == ("KeyError", "'total'")


def test_an_unavailable_replayer_never_quarantines() -> None:
    recovery = given(granted(), expired(), reloaded(), step_failed(1000))

    (event,) = replay(
        recovery, decision(), outcome(result=ReplayResult.UNAVAILABLE), policy=POLICY, now=NOW
    )

    assert isinstance(event, StepFailed)
    assert event.failed_step is RecoveryStep.REPLAY


@pytest.mark.parametrize("stage", [Stage.HELD, Stage.EXPIRED, Stage.RELOADED, Stage.READY])
def test_an_attempt_past_its_timeout_is_never_dispatched_again(stage: Stage) -> None:
    recovery = standing_at(stage)
    quarantining = Policy(is_timeout_quarantined=True)

    ends: Sequence[Recovery] = [
        fold(recovery, time_out(recovery, decision(), policy)) for policy in (POLICY, quarantining)
    ]

    assert [after.stage for after in ends] == [Stage.ENDED, Stage.QUARANTINED]


def test_a_seized_foreign_lease_proceeds_like_any_other() -> None:
    past = (granted(), expired(None), seized(2, from_epoch=1, why=SeizeReason.FOREIGN))

    assert isinstance(reload_after(*past, tip=checkpoint()), CheckpointReloaded)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ProblemKind.MISSING, Quarantined),
        (ProblemKind.CORRUPT, Quarantined),
        (ProblemKind.UNAVAILABLE, StepFailed),
    ],
)
def test_a_tip_that_goes_after_its_reload_leads_where_it_would_have_led_before(
    kind: ProblemKind, expected: type[AnyEvent]
) -> None:
    before, reloaded_already = standing_at(Stage.EXPIRED), standing_at(Stage.RELOADED)

    (early,) = reload(before, decision(), problem(kind), policy=POLICY, now=NOW)
    (late,) = lose_tip(reloaded_already, decision(), problem(kind), policy=POLICY, now=NOW)

    assert isinstance(early, expected)
    assert isinstance(late, expected)
    if isinstance(early, Quarantined) and isinstance(late, Quarantined):
        assert late.cause is early.cause
