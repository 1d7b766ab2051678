"""A journal that was restored to an earlier point: its refusals, and how it is accepted again.

One server is restored once; each test has a schema of its own in it, with the same past, and the
leases of the future that the restore has undone.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal import Follower
from recovery_journal.domain.errors import ServerReplaced, TailLost
from recovery_journal.domain.events import LeaseExpired, StaleWriteRefused
from recovery_journal.domain.lease import LossReason
from recovery_journal.store.lease import LeaseTerms
from tests.restores import archiving, backed_up, dumped_to, name_point, restored_to
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import (
    LIMITS,
    change,
    claim_one,
    events_of,
    held,
    make_ready,
    rows,
    types_of,
    worked,
)
from tests.servers import PrivateServer

SCHEMAS = [f"restored_{number}" for number in range(20)]
WRITES: dict[str, Callable[[rj.Lease], object]] = {
    "heartbeat": rj.Lease.heartbeat,
    "begin_step": lambda lease: lease.begin_step("mail"),
    "record_step": lambda lease: lease.record_step("more", {"n": 9}),
    "checkpoint": lambda lease: lease.checkpoint({"sum": 9}),
    "complete": lambda lease: lease.complete("of a lost future"),
    "fail": lambda lease: lease.fail(RuntimeError("of a lost future")),
    "wait": lambda lease: lease.wait("of a lost future"),
    "hand_back": lambda lease: lease.hand_back("of a lost future"),
}


def accept(journal: rj.Journal) -> rj.Restored:
    """Do what the refusal says."""
    return journal.after_restore(by="clerk-4", reason="disk 7 is gone")


@dataclass(frozen=True)
class Lost:
    """The parts of a lost future of a journal."""

    leases: dict[str, LeaseTerms]
    epoch: int
    position: int


@dataclass(frozen=True)
class Restored:
    """One schema of the restored server, and the future that it does not have."""

    server: PrivateServer
    schema: str
    lost: Lost

    def open(self, *, must_be_accepted: bool = True) -> rj.Journal:
        """The journal as it was restored."""
        return rj.open(
            self.server.dsn,
            schema=self.schema,
            limits=LIMITS,
            must_exist=True,
            must_be_accepted=must_be_accepted,
        )

    def accept(self) -> rj.Restored:
        """Do what the refusal says."""
        with self.open(must_be_accepted=False) as journal:
            return accept(journal)


def live_until_the_point(journal: rj.Journal) -> dict[str, LeaseTerms]:
    """The content of the backup."""
    make_ready(journal, "a-ready")
    return {
        attempt_id: worked(held(journal, attempt_id)).terms
        for attempt_id in ("a-held", "a-completed")
    }


def live_on(journal: rj.Journal, leases: dict[str, LeaseTerms]) -> Lost:
    """The events that the restore undoes: a step, a completion, a claim, a new attempt."""
    journal.adopt(leases["a-held"]).record_step("step-3", {"n": 3})
    journal.adopt(leases["a-completed"]).complete("done")
    leases = {
        **leases,
        "a-ready": claim_one(journal, "w-lost").lease.terms,
        "a-new": worked(held(journal, "a-new")).terms,
    }
    found = rows(journal, "SELECT max(epoch) AS epoch FROM leases")
    return Lost(leases, epoch=found[0]["epoch"], position=journal.reader.last_position())


@pytest.fixture(scope="module")
def restored_schemas() -> Iterator[Iterator[Restored]]:
    with tempfile.TemporaryDirectory(prefix="rj-") as folder:
        server = archiving(Path(folder))
        try:
            backup = backed_up(server, "backup")
            journals = {
                schema: rj.open(server.dsn, schema=schema, limits=LIMITS) for schema in SCHEMAS
            }
            leases = {name: live_until_the_point(journals[name]) for name in SCHEMAS}
            name_point(server, "before")
            lost = {name: live_on(journals[name], leases[name]) for name in SCHEMAS}
            with restored_to(server, backup, "before") as restored:
                for journal in journals.values():
                    journal.close()
                server.stop("immediate")
                yield (Restored(restored, name, lost[name]) for name in SCHEMAS)
        finally:
            server.stop("immediate")


@pytest.fixture
def restored(restored_schemas: Iterator[Restored]) -> Restored:
    return next(restored_schemas)


@pytest.fixture
def journal(restored: Restored) -> Iterator[rj.Journal]:
    """The restored journal, accepted; in the end its rows say what its log says."""
    restored.accept()
    with restored.open() as journal:
        yield journal
        assert_in_step(journal)


def test_a_restored_journal_is_refused_with_the_command_that_helps(restored: Restored) -> None:
    with pytest.raises(ServerReplaced) as refused:
        restored.open()

    said = str(refused.value)
    assert "found system identifier" in said
    assert ", timeline 2, needed the server" in said
    assert ", timeline 1)" in said
    assert "recovery-journal after-restore --by NAME --reason TEXT" in said


def test_its_status_may_be_queried_and_says_so(restored: Restored) -> None:
    with restored.open(must_be_accepted=False) as journal:
        first = journal.status().delays[0]

    assert first.kind == "server_not_accepted"
    assert "timeline 2" in first.what
    assert "after-restore" in first.do


def test_what_was_held_is_taken_back_and_recovered_from_what_is_there(restored: Restored) -> None:
    report = restored.accept()

    with restored.open() as journal:
        assert report.is_done
        assert report.fenced_count == 2
        assert {(one.attempt_id, one.stage) for one in report.swept} == {
            ("a-held", rj.Stage.READY),
            ("a-completed", rj.Stage.READY),
        }
        claims = {claim.lease.attempt_id: claim for claim in journal.claim(worker_id="w", limit=9)}
        assert claims.keys() == {"a-held", "a-completed", "a-ready"}
        assert [step.ordinal for step in claims["a-held"].tail] == [2]
        assert_in_step(journal)


def test_the_log_says_who_took_the_leases_back_and_why(journal: rj.Journal) -> None:
    (lost,) = events_of(journal, LeaseExpired, "a-held")

    assert lost.loss is LossReason.REPORTED
    assert (lost.recorded_by.role, lost.recorded_by.name) == ("person", "clerk-4")
    assert lost.reason == "after a restore: disk 7 is gone"
    assert lost.is_fleet_wide
    assert journal.recovery("a-held").recoveries_without_progress == 0


def test_the_decision_is_kept_with_what_was_found(restored: Restored) -> None:
    restored.accept()

    with restored.open() as journal:
        first, last = rows(journal, "SELECT * FROM accepted_servers ORDER BY acceptance_no")
    assert (first["timeline"], last["timeline"]) == (1, 2)
    assert first["system_identifier"] == last["system_identifier"]
    assert (last["accepted_by"], last["reason"]) == ("clerk-4", "disk 7 is gone")
    assert (last["fenced_count"], last["differences"]) == (2, [])


@pytest.mark.parametrize("attempt_id", ["a-held", "a-completed", "a-ready", "a-new"])
def test_a_worker_of_the_lost_future_is_refused_every_write(
    journal: rj.Journal, restored: Restored, attempt_id: str
) -> None:
    zombie = restored.lost.leases[attempt_id]

    for write in WRITES.values():
        with pytest.raises(rj.LeaseLost):
            write(journal.adopt(zombie))

    if attempt_id != "a-new":
        refused = events_of(journal, StaleWriteRefused, attempt_id)
        assert {one.fence for one in refused} == {zombie.fence}
        assert len(refused) == len(WRITES)
        assert "LeaseEnded" not in types_of(journal, attempt_id)


def test_no_epoch_of_the_lost_future_is_given_out_again(
    journal: rj.Journal, restored: Restored
) -> None:
    assert held(journal, "a-next").terms.fence.epoch > restored.lost.epoch
    assert claim_one(journal, kinds=["run"]).lease.terms.fence.epoch > restored.lost.epoch


def test_no_position_of_the_lost_future_is_given_out_again(
    journal: rj.Journal, restored: Restored
) -> None:
    of_the_past = [entry.position for entry in journal.log() if entry.position < 1_000]
    held(journal, "a-next")

    positions = [entry.position for entry in journal.log()]

    assert not set(positions) & set(range(max(of_the_past) + 1, restored.lost.position + 1))
    assert positions[-1] > restored.lost.position
    assert [entry.position for entry in journal.log(after=max(of_the_past))] == positions[
        len(of_the_past) :
    ]


def test_a_reader_of_the_lost_future_gets_an_error_and_does_not_continue_silently(
    journal: rj.Journal, restored: Restored
) -> None:
    held(journal, "a-next")

    with pytest.raises(TailLost, match="rebuild the projections"):
        journal.log(after=restored.lost.position)


def test_it_is_idempotent(restored: Restored) -> None:
    restored.accept()
    with restored.open() as journal:
        before = [entry.position for entry in journal.log()]

        again = accept(journal)

        assert not again.is_done
        assert again.fenced_count == 0
        assert [entry.position for entry in journal.log()] == before
        assert len(rows(journal, "SELECT FROM accepted_servers")) == 2


def test_where_nothing_was_lost_every_lease_continues(restored: Restored) -> None:
    """And this is what a restore without a fence would let the workers of a lost future do."""
    with restored.open(must_be_accepted=False) as journal:
        report = journal.after_restore(by="hook", reason="an upgrade", is_nothing_lost=True)

    with restored.open() as journal:
        assert report.is_done
        assert report.raised is None
        journal.adopt(restored.lost.leases["a-completed"]).complete("of a lost future")
        assert types_of(journal, "a-completed")[-1] == "LeaseEnded"


def test_killed_before_the_end_it_is_retried(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_given: object, **_named: object) -> None:
        raise KeyboardInterrupt

    with restored.open(must_be_accepted=False) as journal:
        with monkeypatch.context() as patched:
            patched.setattr("recovery_journal.restore.restore.accept", die)
            with pytest.raises(KeyboardInterrupt):
                accept(journal)
        with pytest.raises(ServerReplaced):
            restored.open()

        report = accept(journal)

    assert report.is_done
    with restored.open() as journal:
        assert types_of(journal, "a-held").count("LeaseExpired") == 1
        with pytest.raises(TailLost):
            journal.log(after=restored.lost.position)
        assert {one.stage for one in report.swept} == {rj.Stage.READY}
        assert_in_step(journal)


def test_a_dump_in_another_cluster_is_refused_and_then_whole(
    restored: Restored, server_dsn: str, tmp_path: Path
) -> None:
    schema = restored.schema
    dumped_to(restored.server, schema, server_dsn, tmp_path)

    with pytest.raises(ServerReplaced, match=", timeline 1, needed"):
        rj.open(server_dsn, schema=schema)
    with rj.open(server_dsn, schema=schema, limits=LIMITS, must_be_accepted=False) as journal:
        report = accept(journal)
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        assert report.fenced_count == 2
        assert report.differences == ()
        assert_in_step(journal)
        Follower(journal).catch_up(timeout_s=20)
        assert all(one.is_right for one in journal.check())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            change(journal, "DELETE FROM journal_events")
        change(journal, f"DROP SCHEMA {schema} CASCADE")
