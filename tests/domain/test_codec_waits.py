"""A value whose codec a process lacks results in a wait, which is no failure of the run's."""

from datetime import datetime, timedelta

from recovery_journal.domain.commands.pipeline import replay
from recovery_journal.domain.commands.requeue import requeue_for_codec
from recovery_journal.domain.events import (
    CODEC_MISSING,
    AnyEvent,
    QuarantineCause,
    Quarantined,
    StepFailed,
)
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage, fold
from recovery_journal.domain.replay import ReplayMode, ReplayOutcome, ReplayResult
from tests.domain.histories import (
    Happening,
    confirmed,
    given,
    granted,
    lifted,
    quarantined,
    recovered,
    standing_at,
    step_failed,
)
from tests.domain.specimens import NOW, decision, fence, lease_view

POLICY = Policy(version_wait_s=3600, raise_limit=3)
HOUR = timedelta(hours=1)
WAIT = step_failed(1, error_class=CODEC_MISSING, waits_since=NOW)


def given_back(count: int) -> list[Happening]:
    """So many claimers had it in turn, and could not decode it; one has it now."""
    past: list[Happening] = [granted()]
    for number in range(1, count + 2):
        lost, *rest = recovered(lost_epoch=2 * number - 1, recovery_no=number)
        past += [lost, WAIT, *rest] if number > 1 else [lost, *rest]
    return past


def lacking(recovery: Recovery, *, now: datetime = NOW) -> tuple[AnyEvent, ...]:
    return requeue_for_codec(
        recovery,
        decision(),
        lease=lease_view(recovery.fence.epoch),
        fence=fence(recovery.fence.epoch + 1),
        message="no codec 'money'",
        policy=POLICY,
        now=now,
    )


def replayed_as(recovery: Recovery, result: ReplayResult, *, now: datetime = NOW) -> AnyEvent:
    outcome = ReplayOutcome(
        attempt_id=recovery.attempt_id,
        result=result,
        mode=ReplayMode.FOLD,
        from_ordinal=1,
        to_ordinal=2,
        digest="ch1:0",
        error_class="CodecMissing",
        message="no codec 'money'",
    )
    (event,) = replay(recovery, decision(), outcome, policy=POLICY, now=now)
    return event


def test_claimers_without_the_codec_wait_for_longer_each_time_and_since_the_first() -> None:
    recovery = given(*given_back(6))

    lost, failed = lacking(recovery, now=NOW + HOUR / 2)

    assert isinstance(failed, StepFailed)
    assert failed.failed_step is RecoveryStep.CHECKPOINT_RELOAD
    assert (failed.error_class, failed.try_count, failed.waits_since) == (CODEC_MISSING, 7, NOW)
    after = fold(recovery, (lost, failed))
    assert after.recoveries_without_progress == recovery.recoveries_without_progress
    assert (after.stage, after.try_count) == (Stage.EXPIRED, 0)


def test_after_the_wait_a_value_whose_codec_no_process_has_is_a_persons_matter() -> None:
    recovery = given(*given_back(2))

    *_, early = lacking(recovery, now=NOW + HOUR - timedelta(seconds=1))
    *_, late = lacking(recovery, now=NOW + HOUR)

    assert isinstance(early, StepFailed)
    assert isinstance(late, Quarantined)
    assert late.cause is QuarantineCause.TOO_NEW
    assert late.explanation == "CodecMissing; none came within 3600 s"
    assert late.message == "no codec 'money'"


def test_the_wait_begins_again_once_a_worker_that_has_the_codec_wrote() -> None:
    *_, event = lacking(given(*given_back(2), confirmed(7)), now=NOW + 9 * HOUR)

    assert isinstance(event, StepFailed)
    assert (event.try_count, event.waits_since) == (1, NOW + 9 * HOUR)


def test_the_wait_begins_again_once_a_person_lifted_its_quarantine() -> None:
    past = [*given_back(2), quarantined(QuarantineCause.TOO_NEW), lifted()]

    assert given(*past).undecoded_since is None


def test_a_sweepers_waits_are_no_tries_of_its_reducer() -> None:
    recovery = standing_at(Stage.RELOADED)
    for _ in range(5):
        event = replayed_as(recovery, ReplayResult.UNREADABLE)
        assert isinstance(event, StepFailed)
        recovery = fold(recovery, (event,))

    first = replayed_as(recovery, ReplayResult.RAISED)

    assert isinstance(first, StepFailed)
    assert (recovery.undecoded_count, first.try_count, first.waits_since) == (5, 1, None)


def test_a_sweeper_gives_up_after_the_wait_too() -> None:
    recovery = standing_at(Stage.RELOADED)
    event = replayed_as(recovery, ReplayResult.UNREADABLE)
    recovery = fold(recovery, (event,))

    late = replayed_as(recovery, ReplayResult.UNREADABLE, now=NOW + HOUR)

    assert isinstance(late, Quarantined)
    assert late.cause is QuarantineCause.TOO_NEW


def test_an_error_of_a_reducers_own_by_that_name_is_a_failure() -> None:
    event = replayed_as(standing_at(Stage.RELOADED), ReplayResult.RAISED)

    recovery = fold(standing_at(Stage.RELOADED), (event,))

    assert (recovery.try_count, recovery.undecoded_count) == (1, 0)
