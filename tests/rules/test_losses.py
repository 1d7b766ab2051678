"""How leases are lost, handed back and counted: sections 6 and 7 of the design."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

import recovery_journal as rj
from recovery_journal.domain.events import (
    Ending,
    LeaseEnded,
    LeaseExpired,
    QuarantineCause,
    Quarantined,
    ReadyForDispatch,
    StartPoint,
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
    types_of,
    until_passed,
    worked,
)

TIMEOUT = timedelta(milliseconds=150)
IN_QUARANTINE = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=rj.Policy(is_timeout_quarantined=True))


def crash(journal: rj.Journal, times: int) -> None:
    """Claim and die, again and again, without any progress."""
    for _ in range(times):
        report(journal, claim_one(journal).lease)


def test_a_lease_handed_back_is_ready_at_once(journal: rj.Journal) -> None:
    lease = worked(held(journal))

    lease.hand_back("draining")

    (lost,) = events_of(journal, LeaseExpired)
    assert (lost.loss, lost.reason) == (rj.LossReason.HANDED_BACK, "draining")
    assert last_of(journal, ReadyForDispatch).start is StartPoint.TIP
    assert claim_one(journal).state == {"sum": 1}


def test_a_reported_worker_loses_its_leases_and_no_other_worker_any(
    journal: rj.Journal,
) -> None:
    for attempt_id, worker_id in (("a", "w-1"), ("b", "w-1"), ("c", "w-2")):
        held(journal, attempt_id, worker_id=worker_id)

    swept = journal.report_lost(worker_id="w-1", reason="pod deleted")

    assert sorted(one.attempt_id for one in swept if one.is_ready) == ["a", "b"]
    assert types_of(journal, "c") == ["LeaseGranted"]
    (lost,) = events_of(journal, LeaseExpired, "a")
    assert (lost.loss, lost.reason) == (rj.LossReason.REPORTED, "pod deleted")


def test_a_late_report_does_not_hit_the_workers_next_life(journal: rj.Journal) -> None:
    lease = held(journal, worker_id="pod-1")
    died = replace(rj.incarnation(), started="an earlier life")

    assert journal.report_lost(worker_id="pod-1", incarnation=died, reason="stop hook") == []

    lease.heartbeat()
    assert types_of(journal) == ["LeaseGranted"]


@pytest.mark.parametrize("as_token", [True, False])
def test_a_report_names_the_life_that_died(journal: rj.Journal, *, as_token: bool) -> None:
    held(journal, "a-1", worker_id="pod-1")
    held(journal, "a-2", worker_id="pod-1")
    change(journal, "UPDATE leases SET process_started = 'earlier' WHERE attempt_id = 'a-1'")
    died = replace(rj.incarnation(), started="earlier")

    swept = journal.report_lost(
        worker_id="pod-1", incarnation=died.token if as_token else died, reason="pod deleted"
    )

    assert [one.attempt_id for one in swept] == ["a-1"]
    assert types_of(journal, "a-2") == ["LeaseGranted"]


def test_a_report_without_an_incarnation_is_refused_where_two_lives_hold_leases(
    journal: rj.Journal,
) -> None:
    held(journal, "a-1", worker_id="pod-1")
    held(journal, "a-2", worker_id="pod-1")
    change(journal, "UPDATE leases SET process_started = 'earlier' WHERE attempt_id = 'a-1'")

    with pytest.raises(rj.InvalidInput, match="name the incarnation that died"):
        journal.report_lost(worker_id="pod-1", reason="pod deleted")

    change(
        journal,
        "UPDATE leases SET process_started = %(started)s",
        {"started": rj.incarnation().started},
    )


def test_a_report_of_an_unknown_worker_is_refused(journal: rj.Journal) -> None:
    with pytest.raises(rj.InvalidInput, match="check the worker's id"):
        journal.report_lost(worker_id="unknown", reason="pod deleted")


def test_five_recoveries_in_a_row_without_progress_are_the_last(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")

    crash(journal, 4)

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.CRASH_LOOP
    assert quarantined.recovery_no == 5
    assert journal.claim(worker_id="w-2") == []


def test_progress_begins_the_count_again(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")
    crash(journal, 3)
    lease = claim_one(journal).lease
    lease.record_step("progress")
    report(journal, lease)

    crash(journal, 4)

    assert types_of(journal)[-1] == "ReadyForDispatch"
    crash(journal, 1)
    assert last_of(journal, Quarantined).cause is QuarantineCause.CRASH_LOOP


def test_hand_backs_do_not_count(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")

    for _ in range(7):
        claim_one(journal).lease.hand_back()

    assert types_of(journal)[-1] == "ReadyForDispatch"
    assert journal.recovery("a-1").recoveries_without_progress == 1


@pytest.mark.parametrize("stage", ["held", "ready", "recovering"])
def test_an_attempt_past_its_execution_timeout_is_ended(
    open_journal: OpenJournal, stage: str
) -> None:
    class Gone(BaseException):
        pass

    def die(_step: rj.StepTaken) -> None:
        raise Gone

    journal = open_journal()
    lease = held(journal, timeout=TIMEOUT)
    if stage == "ready":
        report(journal, lease)
    if stage == "recovering":
        with pytest.raises(Gone):
            report(open_journal(observer=die), lease)
    until_passed(journal, column="deadline_at")

    (swept,) = journal.sweep()

    assert swept.stage is rj.Stage.ENDED
    ended = last_of(journal, LeaseEnded)
    assert (ended.ending, ended.error_class) == (Ending.FAILED, "timeout")
    assert rows(journal, "SELECT status FROM leases") == [{"status": "failed"}]
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    assert journal.sweep() == []


def test_an_execution_timeout_counts_from_the_first_grant(journal: rj.Journal) -> None:
    lease = held(journal, timeout=timedelta(seconds=60))
    (first,) = rows(journal, "SELECT deadline_at FROM leases")
    report(journal, lease)

    claim_one(journal).lease.record_step("step")

    assert rows(journal, "SELECT deadline_at FROM leases") == [first]


def test_an_attempt_past_its_execution_timeout_is_quarantined_where_policy_says_so(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=IN_QUARANTINE)
    make_ready(journal, "a-1", timeout=TIMEOUT)
    until_passed(journal, column="deadline_at")

    journal.sweep()
    assert last_of(journal, Quarantined).cause is QuarantineCause.TIMEOUT
    assert journal.dispatch_ready() == []

    journal.lift_quarantine("a-1", "retry", by="on-call", reason="one more night")
    assert journal.sweep() == []
    claim_one(journal).lease.complete("late, and allowed")


def test_a_run_may_be_attempted_again_after_its_attempt_ended(journal: rj.Journal) -> None:
    lease = worked(held(journal, run_id="r-1"))
    lease.fail("not today")

    again = held(journal, "a-2", run_id="r-1")

    assert again.progress == lease.progress
    assert [step.ordinal for step in journal.load(again).tail] == [2]
    again.record_step("step-3")
    assert again.step_key == "r-1/3"


@pytest.mark.parametrize("status", ["held", "ready", "waiting", "quarantined"])
def test_a_run_with_an_open_attempt_is_busy(journal: rj.Journal, status: str) -> None:
    lease = held(journal, run_id="r-1")
    if status == "waiting":
        lease.wait("inspect it")
    elif status != "held":
        report(journal, lease)
    if status == "quarantined":
        crash(journal, 4)

    with pytest.raises(rj.RunBusy, match=f"'a-1' {status}"):
        held(journal, "a-2", run_id="r-1")

    assert rows(journal, "SELECT count(*) AS count FROM leases") == [{"count": 1}]


@pytest.mark.parametrize("is_lost", [True, False])
def test_acquire_never_takes_over(journal: rj.Journal, *, is_lost: bool) -> None:
    lease = held(journal, ttl=timedelta(milliseconds=100) if is_lost else None)
    if is_lost:
        until_passed(journal)

    with pytest.raises(rj.AttemptExists, match="claim it once it is ready"):
        held(journal, worker_id="w-2")

    assert types_of(journal) == ["LeaseGranted"]
    lease.heartbeat()


def test_a_run_keeps_its_kind_and_input(journal: rj.Journal) -> None:
    held(journal, run_id="r-1", kind="report", input={"day": 1}).complete()

    with pytest.raises(rj.RunMismatch, match="its kind recorded as 'report'"):
        held(journal, "a-2", run_id="r-1", kind="import", input={"day": 1})
    with pytest.raises(rj.RunMismatch, match="its input recorded as"):
        held(journal, "a-2", run_id="r-1", kind="report", input={"day": 2})

    assert rows(journal, "SELECT count(*) AS count FROM leases") == [{"count": 1}]
