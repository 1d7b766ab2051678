"""The pipeline's own commands: the event that each records, and that each is idempotent."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from recovery_journal.domain.checkpoint import InDoubt, ProblemKind
from recovery_journal.domain.commands.lease import seize
from recovery_journal.domain.commands.pipeline import abandon, expire, make_ready, reload, replay
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.errors import LeaseLost, WrongStage
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    CheckpointReloaded,
    LeaseExpired,
    Quarantined,
    ReadyForDispatch,
    Replayed,
    Seized,
    SeizeReason,
    StartPoint,
    StepFailed,
    TipStanding,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.pipeline import RecoveryContext, RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage, fold
from recovery_journal.domain.replay import ReplayResult
from tests.domain.histories import (
    abandoned,
    dispatched,
    expired,
    given,
    granted,
    ready,
    recovered,
    reloaded,
    replayed,
    seized,
    standing_at,
    step_failed,
)
from tests.domain.specimens import (
    ATTEMPT_ID,
    INPUT_DIGEST,
    NOW,
    RUN_ID,
    SWEEPER,
    chain_at,
    checkpoint,
    decision,
    fence,
    lease_view,
    outcome,
    problem,
    progress,
    run_input,
)

POLICY = Policy()


def test_a_lost_lease_is_recorded_with_all_its_evidence() -> None:
    lease = lease_view(1, progress=progress(4, 1), is_confirmed=True)

    (event,) = expire(
        given(granted()),
        decision(reason="no renewal"),
        lease=lease,
        loss=LossReason.TTL,
        fence=fence(2),
    )

    assert isinstance(event, LeaseExpired)
    assert (event.lease, event.loss, event.recovery_no) == (lease, LossReason.TTL, 1)
    assert (event.fence, event.is_fleet_wide) == (fence(2), False)
    assert (event.recorded_by, event.reason, event.trace_id) == (SWEEPER, "no renewal", None)


def test_each_loss_begins_the_next_recovery() -> None:
    recovery = given(granted(), *recovered(lost_epoch=1, recovery_no=1))

    (event,) = expire(
        recovery, decision(), lease=lease_view(3), loss=LossReason.TTL, fence=fence(4)
    )

    assert isinstance(event, LeaseExpired)
    assert event.recovery_no == 2


@pytest.mark.parametrize("stage", [Stage.EXPIRED, Stage.RELOADED, Stage.REPLAYED, Stage.READY])
def test_the_same_loss_is_declared_once(stage: Stage) -> None:
    again = expire(
        standing_at(stage), decision(), lease=lease_view(1), loss=LossReason.TTL, fence=fence(9)
    )

    assert again == ()


def test_a_holder_does_not_lose_its_lease_on_the_evidence_of_an_older_one() -> None:
    recovery = given(granted(), *recovered(lost_epoch=1, recovery_no=1))

    with pytest.raises(LeaseLost, match="epoch 1 is void, found epoch 3"):
        expire(recovery, decision(), lease=lease_view(1), loss=LossReason.TTL, fence=fence(9))


def test_a_seizure_says_which_fence_replaced_which() -> None:
    recovery = given(granted(), expired(2), reloaded())

    (event,) = seize(recovery, decision(), fence=fence(5), why=SeizeReason.SWEEPER_LOST)

    assert isinstance(event, Seized)
    assert (event.from_fence, event.fence) == (fence(2), fence(5))
    assert (event.why, event.recovery_no) == (SeizeReason.SWEEPER_LOST, 1)
    assert fold(recovery, [event]).stage is Stage.RELOADED


@pytest.mark.parametrize("stage", Stage)
def test_the_same_fence_is_taken_once(stage: Stage) -> None:
    recovery = standing_at(stage)

    assert seize(recovery, decision(), fence=recovery.fence, why=SeizeReason.FOREIGN) == ()


def test_the_tip_is_adopted_with_all_that_says_what_it_is() -> None:
    doubt = (InDoubt(key="r-1/6", name="charge"),)
    tip = checkpoint(3, checkpoint_no=2, tail_count=2, in_doubt=doubt)

    (event,) = reload(
        given(granted(), expired(reported=progress(5, 2))), decision(), tip, policy=POLICY, now=NOW
    )

    assert isinstance(event, CheckpointReloaded)
    assert (event.ref, event.ordinal, event.digest) == (tip.ref, 3, chain_at(3))
    assert (event.to_ordinal, event.standing) == (5, TipStanding.EQUAL)
    assert (event.state_digest, event.written_by_epoch) == (tip.state_digest, 1)
    assert (event.input_digest, event.code_version) == (INPUT_DIGEST, "1.4")
    assert event.in_doubt == doubt


def test_adopting_the_same_tip_is_idempotent() -> None:
    recovery = given(granted(), expired(), reloaded(checkpoint(3)))

    assert reload(recovery, decision(), checkpoint(3), policy=POLICY, now=NOW) == ()


def test_another_tip_is_refused_once_one_is_adopted() -> None:
    recovery = given(granted(), expired(), reloaded(checkpoint(3)))

    with pytest.raises(WrongStage):
        reload(recovery, decision(), checkpoint(4), policy=POLICY, now=NOW)


def test_a_foreign_tip_is_not_read_before_its_lease_is_seized() -> None:
    lost = (granted(), expired(None))

    with pytest.raises(WrongStage, match="found stage expired, not yet seized"):
        reload(given(*lost), decision(), checkpoint(), policy=POLICY, now=NOW)

    fenced = given(*lost, seized(2, from_epoch=1, why=SeizeReason.FOREIGN))
    assert len(reload(fenced, decision(), checkpoint(), policy=POLICY, now=NOW)) == 1


def test_the_context_of_a_replay_is_what_was_reloaded() -> None:
    tip = checkpoint(3, checkpoint_no=2, tail_count=2)
    recovery = given(granted(), expired(2, reported=progress(4, 2)), reloaded(tip))

    assert recovery.context() == RecoveryContext(
        attempt_id=ATTEMPT_ID,
        run_id=RUN_ID,
        kind="report",
        recovery_no=1,
        checkpoint=tip.ref,
        from_ordinal=4,
        to_ordinal=5,
        expected=progress(4, 2),
        fence=fence(2),
    )


def test_a_replay_is_recorded_with_both_digests() -> None:
    recovery = standing_at(Stage.RELOADED)

    (event,) = replay(recovery, decision(), outcome(state_digest="cs1:s"), policy=POLICY, now=NOW)

    assert isinstance(event, Replayed)
    assert (event.from_ordinal, event.to_ordinal) == (4, 5)
    assert (event.digest, event.expected_digest) == (chain_at(5), chain_at(5))
    assert (event.expected_from, event.state_digest) == ("run step", "cs1:s")


def test_the_same_replay_is_idempotent() -> None:
    assert replay(standing_at(Stage.REPLAYED), decision(), outcome(), policy=POLICY, now=NOW) == ()


def test_an_attempt_is_put_up_with_what_its_next_worker_needs() -> None:
    doubt = (InDoubt(key="r-1/6", name="charge"),)
    recovery = given(
        granted(tenant="acme", priority=5),
        expired(),
        reloaded(checkpoint(in_doubt=doubt)),
        replayed(),
    )

    (event,) = make_ready(recovery, decision(), now=NOW, not_before=NOW + timedelta(seconds=9))

    assert isinstance(event, ReadyForDispatch)
    assert (event.tenant, event.priority, event.kind) == ("acme", 5, "report")
    assert (event.attempt_no, event.code_version) == (1, "1.4")
    assert (event.ready_at, event.not_before) == (NOW, NOW + timedelta(seconds=9))
    assert event.in_doubt == doubt


def test_the_start_is_the_checkpoint_if_there_is_one_else_the_input() -> None:
    starts = []
    for tip in (checkpoint(), run_input()):
        recovery = given(granted(), expired(), reloaded(tip), replayed(tip))
        (event,) = make_ready(recovery, decision(), now=NOW)
        assert isinstance(event, ReadyForDispatch)
        starts.append(event.start)

    assert starts == [StartPoint.TIP, StartPoint.INPUT]


def test_a_failed_step_waits_longer_each_time_and_not_for_ever() -> None:
    policy = Policy(backoff_s=1.0, backoff_limit_s=5.0)
    recovery = given(granted(), expired())

    waits = []
    for _ in range(5):
        events = fail_step(
            recovery,
            decision(),
            RecoveryStep.CHECKPOINT_RELOAD,
            error_class="OSError",
            message="down",
            policy=policy,
            now=NOW,
        )
        recovery = fold(recovery, events)
        (event,) = events
        assert isinstance(event, StepFailed)
        waits.append((event.try_count, (event.retry_at - NOW).total_seconds()))

    assert waits == [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (5, 5.0)]
    assert recovery.stage is Stage.EXPIRED


def test_a_step_that_succeeds_forgets_the_failures_before_it() -> None:
    recovery = given(granted(), expired(), step_failed(1), step_failed(2), reloaded())

    assert recovery.try_count == 0


def test_an_abandoned_recovery_says_why_and_on_what_evidence() -> None:
    seen = lease_view(1)

    (event,) = abandon(
        given(granted(), expired(None)), decision(), AbandonReason.RENEWED_LATE, lease=seen
    )

    assert isinstance(event, Abandoned)
    assert (event.why, event.lease, event.fence) == (AbandonReason.RENEWED_LATE, seen, fence(1))


def test_abandoning_for_the_same_reason_is_idempotent() -> None:
    late = given(granted(), expired(None), abandoned(AbandonReason.RENEWED_LATE, fence=fence(1)))
    over = given(granted(), expired(), abandoned(AbandonReason.ALREADY_COMPLETED))

    assert abandon(over, decision(), AbandonReason.ALREADY_COMPLETED) == ()
    assert abandon(late, decision(), AbandonReason.RENEWED_LATE) == ()


def test_a_lease_is_not_given_back_once_it_was_fenced() -> None:
    for recovery in (
        given(granted(), expired(2)),
        given(granted(), expired(None), seized(2, from_epoch=1)),
    ):
        with pytest.raises(LeaseLost, match="epoch 1 is void, found epoch 2"):
            abandon(recovery, decision(), AbandonReason.RENEWED_LATE, lease=lease_view(1))


FENCED_BY_AN_OLDER_EPOCH = {
    "expire": lambda: expire(
        given(granted(5)), decision(), lease=lease_view(5), loss=LossReason.TTL, fence=fence(4)
    ),
    "seize": lambda: seize(
        given(granted(), expired(5)), decision(), fence=fence(4), why=SeizeReason.SWEEPER_LOST
    ),
}


@pytest.mark.parametrize("name", FENCED_BY_AN_OLDER_EPOCH)
def test_a_sweeper_cannot_fence_with_an_epoch_that_is_not_newer(name: str) -> None:
    with pytest.raises(LeaseLost, match="epoch 4 is void, found epoch 5"):
        FENCED_BY_AN_OLDER_EPOCH[name]()


def test_a_problem_that_cannot_pass_is_never_adopted() -> None:
    for kind in ProblemKind:
        events = reload(
            given(granted(), expired()), decision(), problem(kind), policy=POLICY, now=NOW
        )
        assert not any(isinstance(event, CheckpointReloaded) for event in events)


def test_a_replay_that_raised_is_never_recorded_as_replayed() -> None:
    for result in (ReplayResult.RAISED, ReplayResult.UNAVAILABLE, ReplayResult.DIVERGED):
        events = replay(
            standing_at(Stage.RELOADED),
            decision(),
            outcome(result=result),
            policy=POLICY,
            now=NOW,
        )
        assert not any(isinstance(event, Replayed) for event in events)


def test_a_replay_whose_digests_differ_is_diverged_whatever_it_says_of_itself() -> None:
    lying = outcome(result=ReplayResult.REPLAYED, expected_digest=chain_at(9))

    (event,) = replay(standing_at(Stage.RELOADED), decision(), lying, policy=POLICY, now=NOW)

    assert isinstance(event, Quarantined)


def test_a_dispatched_attempt_can_be_lost_again_and_its_old_recovery_is_forgotten() -> None:
    past = (granted(), expired(), reloaded(), replayed(), ready(), dispatched(3))

    recovery: Recovery = given(*past, expired(4, lost_epoch=3, recovery_no=2))

    assert recovery.stage is Stage.EXPIRED
    assert (recovery.reloaded, recovery.replayed, recovery.ready) == (None, None, None)
    assert replace(recovery, version=0).recovery_no == 2
