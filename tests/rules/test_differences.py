"""Lease rows and log put together from different moments: what differs is said, and made safe."""

from collections.abc import Iterator

import pytest

import recovery_journal as rj
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.restore.differences import Difference
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import LIMITS, change, claim_one, held, make_ready, rows, types_of, worked


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal


def forget(journal: rj.Journal, attempt_id: str, *, after: int) -> None:
    """The log is of an earlier moment than the lease row."""
    change(journal, "ALTER TABLE journal_events DISABLE TRIGGER ALL")
    change(
        journal,
        "DELETE FROM journal_events WHERE originator_id = %(id)s AND originator_version > %(v)s",
        {"id": attempt_id, "v": after},
    )
    change(journal, "ALTER TABLE journal_events ENABLE TRIGGER ALL")


def after_restore(journal: rj.Journal) -> rj.Restored:
    """Say that this journal was restored, which nothing about the server shows."""
    return journal.after_restore(by="clerk-4", reason="two backups", is_restored=True)


def only(report: rj.Restored) -> Difference:
    (difference,) = report.differences
    return difference


def test_a_server_that_looks_the_same_is_believed_unless_a_person_knows_better(
    journal: rj.Journal,
) -> None:
    lease = held(journal)

    not_needed = journal.after_restore(by="clerk-4", reason="to be sure")
    lease.heartbeat()
    asked_for = after_restore(journal)

    assert (not_needed.is_done, asked_for.is_done) == (False, True)
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    assert_in_step(journal)


def test_a_check_changes_nothing(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    forget(journal, "a-1", after=1)

    look = journal.differences()

    assert only(look).kind == "lease_ahead"
    assert not look.is_done
    lease.heartbeat()


class Died(Exception):
    pass


@pytest.mark.parametrize("step", [rj.RecoveryStep.CHECKPOINT_RELOAD, rj.RecoveryStep.REPLAY])
def test_a_recovery_that_stands_between_two_steps_is_no_difference(
    journal: rj.Journal, server_dsn: str, schema: str, step: rj.RecoveryStep
) -> None:
    """These steps leave the lease row alone; found when the whole change was read again."""

    def die(taken: rj.StepTaken) -> None:
        if taken.step is step:
            raise Died

    lease = worked(held(journal))
    with (
        rj.open(server_dsn, schema=schema, limits=LIMITS, observer=die) as dying,
        pytest.raises(Died),
    ):
        dying.report_lost(worker_id=lease.worker_id, reason="pod deleted")

    assert journal.differences().differences == ()


def test_a_lease_that_knows_more_than_the_log_is_listed_and_recovered_by_the_log(
    journal: rj.Journal,
) -> None:
    lease = worked(held(journal))
    forget(journal, "a-1", after=1)

    report = after_restore(journal)

    difference = only(report)
    assert (difference.kind, difference.attempt_id) == ("lease_ahead", "a-1")
    assert (difference.lease_version, difference.log_version) == (2, 1)
    assert [one.stage for one in report.swept] == [rj.Stage.READY]
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    assert_in_step(journal)


def test_a_claim_that_the_log_has_lost_is_void(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")
    ready_version = len(types_of(journal))
    claim = claim_one(journal)
    forget(journal, "a-1", after=ready_version)

    report = after_restore(journal)

    assert only(report).lease_status == "held"
    with pytest.raises(rj.LeaseLost):
        claim.lease.complete("of a lost future")
    journal.rebuild()
    claim_one(journal, "w-3").lease.complete("once")
    assert journal.result("a-1") == "once"


def test_a_lease_that_knows_less_than_the_log_is_made_to_say_what_the_log_says(
    journal: rj.Journal,
) -> None:
    lease = worked(held(journal))
    fence = lease.terms.fence
    lease.complete("done")
    change(
        journal,
        "UPDATE leases SET status = 'held', version = 2, ended_at = NULL, epoch = %(epoch)s, "
        "lease_id = %(lease_id)s, expires_at = clock_timestamp() + interval '1 hour'",
        {"epoch": fence.epoch, "lease_id": fence.lease_id},
    )

    report = after_restore(journal)

    assert only(report).kind == "log_ahead"
    assert [one.stage for one in report.swept] == [rj.Stage.ENDED]
    with pytest.raises(rj.LeaseLost):
        lease.record_step("more", {"n": 3})
    assert_in_step(journal)


def test_a_lease_without_a_stream_is_closed_and_its_run_is_free(journal: rj.Journal) -> None:
    lease = held(journal)
    forget(journal, "a-1", after=0)

    report = after_restore(journal)

    assert only(report).kind == "lease_only"
    for write in (lease.heartbeat, lease.complete, lambda: lease.hand_back("")):
        with pytest.raises(rj.LeaseLost):
            write()
    held(journal, "a-2", run_id="run of a-1")


def test_a_stream_without_a_lease_is_listed(journal: rj.Journal) -> None:
    held(journal)
    change(journal, "DELETE FROM leases")

    report = after_restore(journal)

    difference = only(report)
    assert (difference.kind, difference.run_id) == ("log_only", "run of a-1")


def test_an_attempt_that_cannot_be_opened_again_holds_up_no_other(journal: rj.Journal) -> None:
    held(journal).complete("done")
    held(journal, "a-2", run_id="run of a-1")
    held(journal, "a-3")
    forget(journal, "a-1", after=1)

    report = after_restore(journal)

    errors = {one.attempt_id: one.error for one in report.swept if one.error}
    assert errors.keys() == {"a-1"}
    assert "another open attempt" in errors["a-1"]
    assert journal.recovery("a-3").stage is rj.Stage.READY


def test_a_projection_that_has_read_lost_events_is_named_and_left_alone_until_rebuilt(
    journal: rj.Journal,
) -> None:
    held(journal)
    follower = rj.Follower(journal)
    follower.catch_up(timeout_s=20)
    change(journal, "UPDATE projection_tracking SET position = 700 WHERE projection = 'workers'")

    look = journal.differences()
    delays = {one.kind.value: one for one in journal.status().delays}
    report = after_restore(journal)
    held(journal, "a-2")
    rj.Follower(journal).step()

    assert look.projections == report.projections == ("workers",)
    assert delays["ahead_of_the_log"].do == "recovery-journal rebuild workers"
    place = ProjectionTracking(journal.database).find("workers")
    assert place is not None
    assert place.position == 1
    assert [one.projection for one in journal.outdated] == ["workers"]
    report_of_rebuild = journal.rebuild(["workers"])
    assert report_of_rebuild.event_count < 100
    rj.Follower(journal).catch_up(timeout_s=20)
    assert all(one.is_right for one in journal.check())


def test_a_second_acceptance_waits_for_no_lock_and_numbers_only_grow(journal: rj.Journal) -> None:
    first = after_restore(journal).raised
    second = after_restore(journal).raised

    assert first is not None
    assert second is not None
    assert second.epochs.last >= first.epochs.skipped_to
    assert second.positions.skipped_to > first.positions.skipped_to
    assert len(rows(journal, "SELECT FROM accepted_servers")) == 3
