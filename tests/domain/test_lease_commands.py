"""The commands around a worker that holds the attempt."""

import pytest

from recovery_journal.domain.commands.lease import confirm, dispatch, end, grant, refuse, time_out
from recovery_journal.domain.commands.operator import cancel
from recovery_journal.domain.commands.quarantine import quarantine_diverged
from recovery_journal.domain.errors import LeaseLost, WrongStage
from recovery_journal.domain.events import (
    AnyEvent,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LiftOption,
    QuarantineCause,
    Quarantined,
    StaleWriteRefused,
    WriteKind,
)
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage, evolve, fold
from tests.domain.histories import (
    confirmed,
    dispatched,
    ended,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    ready,
    reloaded,
    replayed,
    standing_at,
)
from tests.domain.specimens import INPUT_DIGEST, SWEEPER, WORKER, decision, fence, holder

HELD_AGAIN = (granted(), expired(), reloaded(), replayed(), ready(), dispatched(3))


def test_an_attempt_begins_with_its_grant() -> None:
    event = grant(
        decision(),
        attempt_id="a-9",
        run_id="r-9",
        holder=holder(),
        fence=fence(7),
        ttl_s=30.0,
        kind="report",
        code_version="1.4",
        attempt_no=2,
        input_digest=INPUT_DIGEST,
        tenant="acme",
        priority=5,
        timeout_s=None,
    )

    recovery = evolve(None, event)

    assert (recovery.id, recovery.run_id, recovery.version) == ("a-9", "r-9", 1)
    assert (recovery.stage, recovery.holder, recovery.fence) == (Stage.HELD, holder(), fence(7))
    assert (recovery.recovery_no, recovery.is_confirmed) == (0, False)
    assert event.recorded_by == SWEEPER


def test_the_claim_that_won_becomes_the_holder() -> None:
    recovery = standing_at(Stage.READY)

    (event,) = claimed(recovery, "claim-3", epoch=3)

    assert isinstance(event, Dispatched)
    assert (event.holder, event.dispatch_id) == (holder("w-2"), "claim-3")
    after = fold(recovery, [event])
    assert (after.stage, after.holder, after.fence) == (Stage.HELD, holder("w-2"), fence(3))
    assert not after.is_confirmed


def test_the_claim_that_won_may_be_retried_and_is_found_done() -> None:
    assert claimed(given(*HELD_AGAIN), "claim-3", epoch=4) == ()


def test_another_claim_is_refused() -> None:
    with pytest.raises(WrongStage, match="found stage held, needed ready"):
        claimed(given(*HELD_AGAIN), "claim-4", epoch=4)


def test_a_claim_cannot_be_fenced_with_an_epoch_that_is_not_newer() -> None:
    with pytest.raises(LeaseLost, match="epoch 2 is void, found epoch 2"):
        claimed(standing_at(Stage.READY), "claim-2", epoch=2)


def claimed(recovery: Recovery, dispatch_id: str, *, epoch: int) -> tuple[AnyEvent, ...]:
    return dispatch(
        recovery,
        decision(),
        holder=holder("w-2"),
        fence=fence(epoch),
        ttl_s=30.0,
        dispatch_id=dispatch_id,
    )


def test_the_first_write_under_a_fence_confirms_it_and_later_ones_have_no_effect() -> None:
    recovery = given(*HELD_AGAIN)

    first = confirm(recovery, decision(), WriteKind.RUN_STEP, 4)
    second = confirm(fold(recovery, first), decision("decision-2"), WriteKind.CHECKPOINT, 4)

    (event,) = first
    assert isinstance(event, Confirmed)
    assert (event.fence, event.write, event.ordinal) == (fence(3), WriteKind.RUN_STEP, 4)
    assert second == ()


def test_each_holder_is_confirmed_for_itself() -> None:
    first, *handed_on = HELD_AGAIN

    assert given(first, confirmed(1)).is_confirmed
    assert not given(first, confirmed(1), *handed_on).is_confirmed


def test_a_refused_write_is_recorded_once_per_fence_and_operation() -> None:
    recovery = given(*HELD_AGAIN)

    first = refuse(recovery, decision(), WriteKind.HEARTBEAT, fence(1))
    after = fold(recovery, first)

    (event,) = first
    assert isinstance(event, StaleWriteRefused)
    assert (event.fence, event.write) == (fence(1), WriteKind.HEARTBEAT)
    assert refuse(after, decision(), WriteKind.HEARTBEAT, fence(1)) == ()
    assert len(refuse(after, decision(), WriteKind.RUN_STEP, fence(1))) == 1
    assert len(refuse(after, decision(), WriteKind.HEARTBEAT, fence(2))) == 1
    assert (after.stage, after.fence) == (recovery.stage, recovery.fence)


def test_looking_after_a_lease_that_the_own_child_has_ended_is_no_stale_write() -> None:
    by_worker = decision(by=WORKER)
    recovery = given(granted())
    ended = fold(recovery, end(recovery, by_worker, Ending.COMPLETED))

    late = refuse(ended, by_worker, WriteKind.HEARTBEAT, fence(1))
    stale = refuse(ended, by_worker, WriteKind.RUN_STEP, fence(1))

    assert late == ()
    assert len(stale) == 1


def test_a_heartbeat_after_a_cancellation_is_a_stale_write() -> None:
    recovery = given(granted())
    cancelled = fold(recovery, cancel(recovery, decision()))

    events = refuse(cancelled, decision(), WriteKind.HEARTBEAT, fence(1))

    assert len(events) == 1


@pytest.mark.parametrize(
    ("ending", "stage"),
    [
        (Ending.COMPLETED, Stage.ENDED),
        (Ending.FAILED, Stage.ENDED),
        (Ending.WAITING, Stage.WAITING),
    ],
)
def test_a_holder_ends_its_lease(ending: Ending, stage: Stage) -> None:
    recovery = given(granted())

    events = end(recovery, decision(), ending, result_digest="cs1:1")

    (event,) = events
    assert isinstance(event, LeaseEnded)
    assert (event.ending, event.fence, event.result_digest) == (ending, fence(1), "cs1:1")
    after = fold(recovery, events)
    assert after.stage is stage
    assert end(after, decision("decision-2"), ending, result_digest="cs1:1") == ()


def test_an_ending_with_another_result_is_refused() -> None:
    over = given(granted(), ended(Ending.COMPLETED, result_digest="cs1:1"))

    with pytest.raises(WrongStage, match="found stage ended, needed held"):
        end(over, decision(), Ending.COMPLETED, result_digest="cs1:2")


def test_a_timeout_ends_the_attempt_as_failed() -> None:
    recovery = given(granted(timeout_s=90.0))

    events = time_out(recovery, decision(), Policy())

    (event,) = events
    assert isinstance(event, LeaseEnded)
    assert (event.ending, event.error_class) == (Ending.FAILED, "timeout")
    assert event.message == "execution timeout of 90 s passed"
    assert fold(recovery, events).stage is Stage.ENDED


def test_a_timeout_quarantines_where_so_configured() -> None:
    recovery = given(granted())
    policy = Policy(is_timeout_quarantined=True)

    events = time_out(recovery, decision(), policy)

    (event,) = events
    assert isinstance(event, Quarantined)
    assert event.cause is QuarantineCause.TIMEOUT
    after = fold(recovery, events)
    assert after.stage is Stage.QUARANTINED
    assert time_out(after, decision(), policy) == ()


def test_a_claimer_that_finds_another_digest_quarantines_the_attempt() -> None:
    recovery = given(*HELD_AGAIN)

    events = differ(recovery)

    (event,) = events
    assert isinstance(event, Quarantined)
    assert (event.cause, event.found_digest) == (QuarantineCause.DIVERGED, "cs1:1")
    assert (event.expected_digest, event.explanation) == ("cs1:2", "the folded state differs")
    assert differ(fold(recovery, events)) == ()


def test_another_quarantine_is_not_taken_for_a_claimers_own() -> None:
    other = given(granted(), expired(), quarantined(QuarantineCause.TIP_LOST))

    with pytest.raises(WrongStage, match="found stage quarantined, needed held"):
        differ(other)


def differ(recovery: Recovery) -> tuple[AnyEvent, ...]:
    return quarantine_diverged(
        recovery,
        decision(),
        explanation="the folded state differs",
        found="cs1:1",
        expected="cs1:2",
    )


def test_a_lifted_attempt_can_still_time_out() -> None:
    recovery = given(
        granted(),
        expired(),
        quarantined(QuarantineCause.CRASH_LOOP),
        lifted(LiftOption.RETRY, epoch=3),
    )

    (event,) = time_out(recovery, decision(), Policy())

    assert isinstance(event, LeaseEnded)
    assert event.fence == fence(3)
