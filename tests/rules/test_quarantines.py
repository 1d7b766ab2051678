"""Failures of docs/rules.md, from damage in the store to the person's choice and the end."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import (
    CheckpointReloaded,
    LiftOption,
    QuarantineCause,
    Quarantined,
    ReadyForDispatch,
    Replayed,
    StartPoint,
    StepFailed,
)
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    rows,
    sum_up,
    sweep_until,
    types_of,
    worked,
)

BY = {"by": "on-call", "reason": "checked"}
Damage = Callable[[rj.Journal], object]


def lose_the_newest_checkpoint(journal: rj.Journal) -> None:
    change(journal, "DELETE FROM checkpoints WHERE checkpoint_no = 2")
    change(journal, "DELETE FROM run_steps WHERE ordinal > 2")


def corrupt_the_newest_state(journal: rj.Journal) -> None:
    change(journal, r"UPDATE checkpoints SET state = '\x00' WHERE checkpoint_no = 2")


def change_an_output(journal: rj.Journal) -> None:
    change(journal, r"UPDATE run_steps SET output = '\x01' WHERE ordinal = 4")


def lose_a_step_in_between(journal: rj.Journal) -> None:
    change(journal, "DELETE FROM run_steps WHERE ordinal = 4")


DAMAGES: dict[QuarantineCause, Damage] = {
    QuarantineCause.TIP_LOST: lose_the_newest_checkpoint,
    QuarantineCause.CORRUPT: corrupt_the_newest_state,
    QuarantineCause.DIVERGED: change_an_output,
}


def long_run(journal: rj.Journal, attempt_id: str = "a-1") -> rj.Lease:
    """Five run steps, checkpoints after the first and the third."""
    lease = worked(held(journal, attempt_id, kind="sum"), step_count=3)
    lease.checkpoint({"sum": 6})
    return worked(lease, step_count=2, checkpoint_at=None)


def quarantine(journal: rj.Journal, damage: Damage) -> Quarantined:
    lease = long_run(journal)
    damage(journal)
    report(journal, lease)
    return last_of(journal, Quarantined)


@pytest.mark.parametrize("cause", DAMAGES)
def test_damage_is_quarantined_and_says_what_was_found(
    journal: rj.Journal, cause: QuarantineCause
) -> None:
    quarantined = quarantine(journal, DAMAGES[cause])

    assert quarantined.cause is cause
    assert quarantined.explanation
    assert rows(journal, "SELECT status FROM leases") == [{"status": "quarantined"}]
    assert journal.dispatch_ready() == []
    assert journal.claim(worker_id="w-2") == []
    assert journal.sweep() == []


def test_a_divergence_names_both_digests_and_the_ordinal(journal: rj.Journal) -> None:
    quarantined = quarantine(journal, change_an_output)

    assert quarantined.ordinal == 4
    assert quarantined.found_digest != quarantined.expected_digest
    assert str(quarantined.found_digest).startswith("ch1:")


def test_a_step_missing_from_the_middle_of_the_tail_is_found(journal: rj.Journal) -> None:
    assert quarantine(journal, lose_a_step_in_between).cause is QuarantineCause.DIVERGED


def test_a_state_that_cannot_be_decoded_holds_up_no_other(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(reducers={"sum": sum_up})
    leases = [long_run(journal, f"a-{number}") for number in range(3)]
    change(
        journal,
        r"""
        UPDATE checkpoints
        SET state = '\xc1', state_digest = 'cs1:' || encode(sha256('\xc1'), 'hex')
        WHERE run_id = 'run of a-1'
        """,
    )

    report(journal, *leases)

    assert last_of(journal, StepFailed).error_class == "PayloadCorrupt"
    for attempt_id in ("a-0", "a-2"):
        assert types_of(journal, attempt_id)[-1] == "ReadyForDispatch"


@pytest.mark.parametrize("cause", DAMAGES)
def test_a_repaired_store_is_tried_again(journal: rj.Journal, cause: QuarantineCause) -> None:
    lease = long_run(journal)
    for table in ("checkpoints", "run_steps"):
        change(journal, f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")  # noqa: S608
    DAMAGES[cause](journal)
    report(journal, lease)
    for table in ("checkpoints", "run_steps"):
        change(journal, f"DELETE FROM {table}")  # noqa: S608
        change(journal, f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608

    swept = journal.lift_quarantine("a-1", LiftOption.RETRY, **BY)

    assert swept.is_ready
    claim = claim_one(journal)
    assert claim.state == {"sum": 6}
    assert [step.output for step in claim.tail] == [{"n": 4}, {"n": 5}]
    continue_to_the_end(journal, claim)


def test_a_store_that_was_not_repaired_is_quarantined_again(journal: rj.Journal) -> None:
    quarantine(journal, corrupt_the_newest_state)

    swept = journal.lift_quarantine("a-1", LiftOption.RETRY, **BY)

    assert swept.stage is rj.Stage.QUARANTINED
    assert len(events_of(journal, Quarantined)) == 2


def test_a_lost_tip_may_be_accepted_as_it_is(journal: rj.Journal) -> None:
    quarantine(journal, lose_the_newest_checkpoint)

    swept = journal.lift_quarantine("a-1", LiftOption.ACCEPT_TIP, **BY)

    assert swept.is_ready
    claim = claim_one(journal)
    assert claim.state == {"sum": 1}
    assert [step.ordinal for step in claim.tail] == [2]
    claim.lease.record_step("step-3", {"n": 3})
    assert claim.lease.step_key == "run of a-1/3"
    continue_to_the_end(journal, claim)


def test_a_divergence_may_be_accepted_as_it_is(journal: rj.Journal) -> None:
    quarantine(journal, change_an_output)

    swept = journal.lift_quarantine("a-1", LiftOption.ACCEPT_TIP, **BY)

    assert swept.is_ready
    claim = claim_one(journal)
    assert [step.output for step in claim.tail] == [1, {"n": 5}]
    claim.lease.checkpoint({"sum": "accepted"})
    continue_to_the_end(journal, claim)


def test_a_corrupt_state_may_be_set_aside_for_its_parent(journal: rj.Journal) -> None:
    quarantine(journal, corrupt_the_newest_state)

    swept = journal.lift_quarantine("a-1", LiftOption.PARENT, **BY)

    assert swept.is_ready
    claim = claim_one(journal)
    assert claim.state == {"sum": 1}
    assert [step.ordinal for step in claim.tail] == [2, 3, 4, 5]
    claim.lease.checkpoint({"sum": 15})
    assert claim.lease.progress.checkpoint_count == 3
    continue_to_the_end(journal, claim)


def test_parents_that_are_corrupt_too_are_set_aside_one_by_one(journal: rj.Journal) -> None:
    quarantine(journal, lambda journal: change(journal, r"UPDATE checkpoints SET state = '\x00'"))

    assert not journal.lift_quarantine("a-1", LiftOption.PARENT, **BY).is_ready
    assert journal.lift_quarantine("a-1", LiftOption.PARENT, **BY).is_ready

    claim = claim_one(journal)
    assert (claim.state, len(claim.tail)) == (None, 5)
    continue_to_the_end(journal, claim)


@pytest.mark.parametrize("cause", DAMAGES)
def test_any_damage_may_be_answered_by_starting_over(
    journal: rj.Journal, cause: QuarantineCause
) -> None:
    quarantine(journal, DAMAGES[cause])
    (stored,) = rows(journal, "SELECT max(ordinal) AS last FROM run_steps")

    swept = journal.lift_quarantine("a-1", LiftOption.RESTART, **BY)

    assert swept.is_ready
    assert last_of(journal, ReadyForDispatch).start is StartPoint.INPUT
    claim = claim_one(journal)
    assert (claim.state, claim.tail) == (None, ())
    claim.lease.record_step("step-1, again", {"n": 1})
    # No key of an effect is used twice.
    assert claim.lease.step_key == f"run of a-1/{stored['last'] + 1}"
    continue_to_the_end(journal, claim)


def continue_to_the_end(journal: rj.Journal, claim: rj.Claim) -> None:
    """The attempt proceeds like any other: it may be lost again, and completes."""
    worked(claim.lease, step_count=2, checkpoint_at=None)
    report(journal, claim.lease)
    assert types_of(journal)[-1] == "ReadyForDispatch"
    last = claim_one(journal, "w-3")
    assert last.lease.progress == claim.lease.progress
    last.lease.complete("done")


@pytest.mark.parametrize("option", [LiftOption.PARENT, "parent"])
def test_an_option_that_the_quarantine_does_not_name_is_refused(
    journal: rj.Journal, option: LiftOption | str
) -> None:
    quarantine(journal, change_an_output)

    with pytest.raises(rj.InvalidInput, match="needed retry or accept_tip or restart"):
        journal.lift_quarantine("a-1", option, **BY)

    assert types_of(journal)[-1] == "Quarantined"


def test_a_word_that_is_no_option_is_refused(journal: rj.Journal) -> None:
    quarantine(journal, change_an_output)

    with pytest.raises(rj.InvalidInput, match="found 'hope'"):
        journal.lift_quarantine("a-1", "hope", **BY)


def test_no_checkpoint_is_restarted_only_where_policy_allows(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, policy=rj.Policy(may_restart=False)))
    make_ready(journal, "a-1", input={"day": 1})
    assert last_of(journal, Quarantined).cause is QuarantineCause.NO_CHECKPOINT

    assert journal.lift_quarantine("a-1", LiftOption.RESTART, **BY).is_ready

    claim = claim_one(journal)
    assert (claim.state, claim.input) == (None, {"day": 1})
    claim.lease.complete()


@pytest.mark.parametrize("option", [LiftOption.RETRY, LiftOption.RESTART])
def test_a_crash_loop_gets_as_many_tries_again(
    open_journal: OpenJournal, option: LiftOption
) -> None:
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, policy=rj.Policy(crash_loop_count=2)))
    make_ready(journal, "a-1")
    report(journal, claim_one(journal).lease)
    assert last_of(journal, Quarantined).cause is QuarantineCause.CRASH_LOOP

    journal.lift_quarantine("a-1", option, **BY)

    report(journal, claim_one(journal).lease)
    assert types_of(journal)[-1] == "ReadyForDispatch"
    claim_one(journal).lease.complete()


# The user's reducer ---------------------------------------------------------------------------


def raising(_state: Any, _name: str, _output: Any) -> Any:
    raise ValueError("cannot fold this")


def endless(_state: Any, _name: str, _output: Any) -> Any:
    time.sleep(60)


def dying(_state: Any, _name: str, _output: Any) -> Any:
    os._exit(3)


def nonsense(_state: Any, _name: str, _output: Any) -> Any:
    return object()


BAD_REDUCERS = {
    "ValueError": raising,
    "DeadlinePassed": endless,
    "ChildDied": dying,
    "InvalidInput": nonsense,
}
FEW_TRIES = rj.Limits(
    ttl_s=60.0,
    grace_s=0.0,
    reducer_s=0.3,
    policy=rj.Policy(raise_limit=3, backoff_s=0.05, backoff_limit_s=0.1),
)


@pytest.mark.parametrize("error_class", BAD_REDUCERS)
def test_a_bad_reducer_is_tried_again_and_then_quarantined(
    open_journal: OpenJournal, error_class: str
) -> None:
    bad, good = BAD_REDUCERS[error_class], sum_up
    journal = open_journal(limits=FEW_TRIES, reducers={"bad": bad, "sum": good})
    leases = [
        worked(held(journal, f"a-{number}", kind=kind, worker_id="w-1"), step_count=3)
        for number, kind in enumerate(("sum", "bad", "sum"))
    ]

    report(journal, leases[0])
    for _ in range(2):
        sweep_until(journal)

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.RAISED
    assert error_class in quarantined.explanation
    failed = events_of(journal, StepFailed)
    assert [event.try_count for event in failed] == [1, 2]
    assert {event.error_class for event in failed} == {error_class}
    for attempt_id in ("a-0", "a-2"):
        assert types_of(journal, attempt_id)[-1] == "ReadyForDispatch"
        assert events_of(journal, Replayed, attempt_id)[0].state_digest


def test_a_failed_step_is_not_tried_before_its_time(open_journal: OpenJournal) -> None:
    journal = open_journal(reducers={"sum": raising})
    report(journal, worked(held(journal, kind="sum")))

    (failed,) = events_of(journal, StepFailed)

    assert journal.sweep() == []
    assert failed.retry_at > journal.history("a-1")[-2].recorded_at
    assert rows(journal, "SELECT status FROM leases") == [{"status": "recovering"}]


def test_retries_back_off(open_journal: OpenJournal) -> None:
    policy = rj.Policy(backoff_s=0.05, backoff_limit_s=10)
    journal = open_journal(
        limits=rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy), reducers={"sum": raising}
    )
    report(journal, worked(held(journal, kind="sum")))
    for _ in range(3):
        sweep_until(journal)

    waits = [
        (entry.event.retry_at - entry.recorded_at).total_seconds()
        for entry in journal.history("a-1")
        if isinstance(entry.event, StepFailed)
    ]
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


@pytest.mark.parametrize("option", [LiftOption.RETRY, LiftOption.RESTART])
def test_after_the_reducer_was_fixed_the_attempt_proceeds(
    open_journal: OpenJournal, option: LiftOption
) -> None:
    once = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=rj.Policy(raise_limit=1))
    broken = open_journal(limits=once, reducers={"sum": raising})
    report(broken, worked(held(broken, kind="sum"), step_count=3))
    repaired = open_journal(limits=once, reducers={"sum": sum_up})

    assert repaired.lift_quarantine("a-1", option, **BY).is_ready

    claim = claim_one(repaired)
    assert claim.folded_state == ({"sum": 6} if option is LiftOption.RETRY else None)
    claim.lease.complete()


def test_the_reload_says_how_the_tip_compares(journal: rj.Journal) -> None:
    lease = long_run(journal)
    report(journal, lease)

    (reloaded,) = events_of(journal, CheckpointReloaded)

    assert (reloaded.standing, reloaded.ordinal, reloaded.to_ordinal) == ("equal", 3, 5)
    assert reloaded.written_by_epoch == lease.fence.epoch
