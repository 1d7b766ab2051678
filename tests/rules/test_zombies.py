"""Rule R7: what a worker writes is in the tip of the recovery, or it is refused. Nothing else."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.checkpoint import CheckpointRef
from recovery_journal.domain.digest import chain_next
from recovery_journal.domain.errors import ServerUnavailable, StepOutOfOrder
from recovery_journal.domain.events import (
    Abandoned,
    CheckpointReloaded,
    LeaseEnded,
    ReadyForDispatch,
    StaleWriteRefused,
    WriteKind,
)
from recovery_journal.postgres.database import Database
from recovery_journal.store.writes import RECORD
from recovery_journal.values.payload import encode
from tests.rules.scenes import (
    SHORT,
    OpenJournal,
    aside,
    blocked_count,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    rows,
    session,
    sweep_until,
    types_of,
    until,
    until_passed,
    worked,
)

# Insufficient, as docs/explanation.md says: nothing is locked, so a seize does not wait for it.
UNLOCKED = """
INSERT INTO run_steps (run_id, ordinal, name, output, chain, epoch)
SELECT run_id, %(ordinal)s, %(name)s, %(output)s, %(chain)s, %(epoch)s
FROM leases
WHERE EXISTS (SELECT FROM leases WHERE attempt_id = %(attempt_id)s AND epoch = %(epoch)s)
    AND attempt_id = %(attempt_id)s
RETURNING ordinal
"""

WRITES: dict[WriteKind, Callable[[rj.Lease], object]] = {
    WriteKind.HEARTBEAT: lambda lease: lease.heartbeat(),
    WriteKind.ANNOUNCEMENT: lambda lease: lease.begin_step("late"),
    WriteKind.RUN_STEP: lambda lease: lease.record_step("late", {"n": 1}),
    WriteKind.CHECKPOINT: lambda lease: lease.checkpoint({"late": True}),
    WriteKind.COMPLETION: lambda lease: lease.complete("late"),
    WriteKind.FAILURE: lambda lease: lease.fail("late"),
    WriteKind.WAIT: lambda lease: lease.wait("late"),
    WriteKind.HAND_BACK: lambda lease: lease.hand_back("late"),
}
STORED = ("runs", "run_steps", "announcements", "checkpoints")


def step_of(lease: rj.Lease) -> dict[str, Any]:
    """The next run step of a lease, as its statement takes it."""
    output, before = encode({"n": 3}, name="output"), lease.progress
    ordinal = before.ordinal + 1
    return {
        "attempt_id": lease.attempt_id,
        "lease_id": lease.fence.lease_id,
        "epoch": lease.fence.epoch,
        "ordinal": ordinal,
        "name": "late",
        "output": output.encoded,
        "previous_chain": before.digest,
        "chain": chain_next(
            before.digest, ordinal=ordinal, name="late", output_digest=output.digest
        ),
    }


def late_step_is_outside_the_tip(journal: rj.Journal, zombie: Any) -> bool:
    """Whether the zombie's write, once committed, was accepted behind the recovery's back."""
    zombie.commit()
    if not events_of(journal, CheckpointReloaded):
        sweep_until(journal)
    stored = rows(journal, "SELECT max(ordinal) AS last FROM run_steps")[0]["last"]
    (reloaded,) = events_of(journal, CheckpointReloaded)
    return bool(stored > reloaded.to_ordinal)


def counts(journal: rj.Journal) -> dict[str, int]:
    return {
        table: rows(journal, f"SELECT count(*) AS count FROM {table}")[0]["count"]  # noqa: S608
        for table in STORED
    }


def test_a_seize_passes_over_a_zombies_open_write_and_then_has_it_in_the_tip(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = worked(held(journal, ttl=SHORT))
    until_passed(journal)

    with session(journal, server_dsn) as zombie:
        assert zombie.execute(RECORD, step_of(lease)).fetchone()
        swept = journal.sweep()
        is_outside = late_step_is_outside_the_tip(journal, zombie)

    assert swept == []
    assert not is_outside
    assert [step.ordinal for step in claim_one(journal).tail] == [2, 3]


def test_an_unlocked_write_is_accepted_after_the_seize_in_the_same_schedule(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = worked(held(journal, ttl=SHORT))
    until_passed(journal)

    with session(journal, server_dsn) as zombie:
        assert zombie.execute(UNLOCKED, step_of(lease)).fetchone()
        swept = journal.sweep()
        is_outside = late_step_is_outside_the_tip(journal, zombie)

    assert [one.is_ready for one in swept] == [True]
    assert is_outside  # the very loss that rule R7 is there to prevent


def test_a_zombies_open_write_that_rolls_back_is_not_in_the_tip(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = worked(held(journal, ttl=SHORT))
    until_passed(journal)

    with session(journal, server_dsn) as zombie:
        zombie.execute(RECORD, step_of(lease))
        assert journal.sweep() == []
        zombie.rollback()
    journal.sweep()

    assert [step.ordinal for step in claim_one(journal).tail] == [2]


def test_a_person_waits_for_a_zombies_open_write_and_what_it_wrote_stays(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = worked(held(journal))

    with session(journal, server_dsn) as zombie:
        zombie.execute(RECORD, step_of(lease))
        with aside(lambda: journal.cancel("a-1", by="on-call", reason="stuck")) as cancelled:
            until(lambda: blocked_count(journal) == 1, "the cancel to wait")
            assert types_of(journal)[-1] == "Confirmed"
            zombie.commit()
            assert cancelled().stage is rj.Stage.ENDED

    assert rows(journal, "SELECT max(ordinal) AS last FROM run_steps") == [{"last": 3}]
    last_of(journal, LeaseEnded)


@pytest.mark.parametrize("is_confirmed", [True, False])
@pytest.mark.parametrize("write", list(WRITES))
def test_a_write_that_waits_for_the_seize_is_refused(
    journal: rj.Journal, server_dsn: str, write: WriteKind, *, is_confirmed: bool
) -> None:
    lease = held(journal)
    if is_confirmed:
        worked(lease)
    before = counts(journal)

    # The seize holds the lease row and cannot append, so its transaction stays open.
    with session(journal, server_dsn) as gate:
        gate.execute("LOCK TABLE journal_events IN SHARE MODE")
        with aside(lambda: report(journal, lease)) as seized:
            until(lambda: blocked_count(journal) == 1, "the seize to stand before the log")
            with aside(lambda: WRITES[write](lease)) as written:
                until(lambda: blocked_count(journal) == 2, "the zombie to wait for the seize")
                gate.rollback()
                assert [one.is_ready for one in seized()] == [True]
                with pytest.raises(rj.LeaseLost, match="is void, found"):
                    written()

    assert counts(journal) == before
    (refused,) = events_of(journal, StaleWriteRefused)
    assert (refused.write, refused.fence) == (write, lease.fence)


@pytest.mark.parametrize("write", list(WRITES))
def test_every_write_is_refused_after_the_seize_and_noted_once(
    journal: rj.Journal, write: WriteKind
) -> None:
    lease = worked(held(journal))
    report(journal, lease)
    before = counts(journal)

    for _ in range(3):
        with pytest.raises(rj.LeaseLost, match="needed the newest fence; stop this work"):
            WRITES[write](lease)

    assert counts(journal) == before
    assert [event.write for event in events_of(journal, StaleWriteRefused)] == [write]


@pytest.mark.parametrize("write", list(WRITES))
def test_a_zombie_is_refused_while_another_worker_holds_the_attempt(
    journal: rj.Journal, write: WriteKind
) -> None:
    zombie = worked(held(journal))
    report(journal, zombie)
    lease = claim_one(journal).lease

    with pytest.raises(rj.LeaseLost, match="held by 'w-2'"):
        WRITES[write](zombie)

    lease.record_step("step-3", {"n": 3})
    lease.complete("done")


@pytest.mark.parametrize("write", list(WRITES))
def test_a_write_after_the_end_is_refused(journal: rj.Journal, write: WriteKind) -> None:
    lease = worked(held(journal))
    lease.complete("done")
    before = counts(journal)

    with pytest.raises(rj.LeaseLost, match="found completed"):
        WRITES[write](lease)

    assert counts(journal) == before
    assert journal.recovery("a-1").stage is rj.Stage.ENDED


def test_the_same_ending_is_idempotent(journal: rj.Journal) -> None:
    lease = worked(held(journal))

    digests = {lease.complete({"sum": 2}) for _ in range(2)}

    assert len(digests) == 1
    assert types_of(journal) == ["LeaseGranted", "Confirmed", "LeaseEnded"]


def test_a_refused_write_during_a_recovery_does_not_disturb_it(open_journal: OpenJournal) -> None:
    zombie: list[rj.Lease] = []

    def write_late(_step: rj.StepTaken) -> None:
        for write in (WriteKind.HEARTBEAT, WriteKind.RUN_STEP):
            with pytest.raises(rj.LeaseLost):
                WRITES[write](zombie[0])

    journal = open_journal(observer=write_late)
    zombie.append(worked(held(journal)))

    (swept,) = report(journal, zombie[0])

    assert swept.is_ready
    assert len(events_of(journal, StaleWriteRefused)) == 2
    assert len(events_of(journal, ReadyForDispatch)) == 1


def test_the_same_epoch_with_another_lease_id_is_refused(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    change(journal, "UPDATE leases SET lease_id = 'another'")

    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()

    change(
        journal,
        "UPDATE leases SET lease_id = %(lease_id)s",
        {"lease_id": lease.fence.lease_id},
    )


def test_two_handles_on_one_lease_cannot_both_write_the_next_step(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    twin = journal.adopt(lease.terms)
    lease.record_step("step-3", {"n": 3})

    with pytest.raises(StepOutOfOrder, match="do not share a lease"):
        twin.record_step("step-3, differently", {"n": 4})
    with pytest.raises(StepOutOfOrder):
        twin.checkpoint({"sum": 7})

    lease.checkpoint({"sum": 6})
    assert lease.checkpoint_ref == CheckpointRef(run_id=lease.run_id, checkpoint_no=2)


def test_only_the_holder_of_now_confirms(journal: rj.Journal) -> None:
    first = worked(held(journal))
    report(journal, first)
    claim = claim_one(journal)

    with pytest.raises(rj.LeaseLost):
        first.checkpoint({"late": True})
    assert not journal.recovery("a-1").is_confirmed
    claim.lease.checkpoint({"sum": 2})

    assert journal.recovery("a-1").is_confirmed


def test_after_a_cancel_the_worker_is_refused(journal: rj.Journal) -> None:
    ready = make_ready(journal, "a-1")
    journal.cancel("a-1", by="on-call", reason="not needed")

    with pytest.raises(rj.LeaseLost, match="found cancelled"):
        ready.heartbeat()

    assert events_of(journal, Abandoned)[0].recorded_by.name == "on-call"


def test_a_write_that_hangs_in_its_transaction_holds_up_the_seize_for_a_limited_time(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = worked(held(journal, ttl=SHORT))
    schema = journal.database.schema
    with closing(Database(server_dsn, schema, idle_in_transaction_s=0.2)) as hanging:
        until_passed(journal)

        def hang() -> None:
            with hanging.transaction() as zombie:
                zombie.execute(RECORD, step_of(lease))
                assert sweep_until(journal).is_ready
                zombie.execute("SELECT 'awake again'")

        with pytest.raises(ServerUnavailable):
            hang()

    assert [step.ordinal for step in claim_one(journal).tail] == [2]
