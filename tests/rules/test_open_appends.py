"""One transaction that appended to one attempt and stays open holds up that attempt alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.claiming.claims import Claims
from recovery_journal.domain.errors import AppendBlocked, StreamOccupied, TailLost
from recovery_journal.domain.events import LeaseExpired
from recovery_journal.log import open_writers
from recovery_journal.log.appender import FEW
from recovery_journal.log.open_writers import BRIEF
from recovery_journal.monitoring.delays import DelayKind
from recovery_journal.recovery import loss
from recovery_journal.store import set_aside
from recovery_journal.store.lease import Lease
from tests.rules.forgeries import KINDS, forge, next_version, put
from tests.rules.scenes import (
    change,
    claim_one,
    events_of,
    held,
    make_ready,
    report,
    rows,
    session,
    types_of,
    until_passed,
    worked,
)

APPEND = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, 'confirmed', '{}')
"""

APPEND_ANY = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is counted in waits; none of these tests needs long ones."""
    monkeypatch.setattr(set_aside, "BE_BRIEF", "SET LOCAL lock_timeout = '50ms'")
    monkeypatch.setattr(open_writers, "BRIEF", "50ms")
    monkeypatch.setattr(open_writers, "LOCK_WAIT_S", 0.05)
    for module in ("recovery.cohort", "restore.fencing"):
        monkeypatch.setattr(
            f"recovery_journal.{module}.BE_BRIEF", "SET LOCAL lock_timeout = '50ms'"
        )
    for name in ("TAKE_LOST", "TAKE_ORPHANED", "TAKE_OVERDUE", "TAKE_MISSED"):
        brief = getattr(loss, name).replace(f"'{BRIEF}'", "'50ms'")
        assert brief != getattr(loss, name)
        monkeypatch.setattr(loss, name, brief)


@contextmanager
def left_open(
    journal: rj.Journal, dsn: str, *attempt_ids: str
) -> Iterator[psycopg.Connection[Any]]:
    """The next version of each of these streams is appended, and not committed."""
    with session(journal, dsn) as other:
        for attempt_id in attempt_ids:
            other.execute(APPEND, [attempt_id, next_version(journal, attempt_id)])
        yield other


@pytest.mark.parametrize("count", [2, FEW, 2 * FEW])
def test_one_sweep_recovers_all_others(damaged: rj.Journal, server_dsn: str, count: int) -> None:
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(count)]

    with left_open(damaged, server_dsn, "a-01"):
        swept = {one.attempt_id: one for one in report(damaged, leases[0])}

        assert [id_ for id_, one in swept.items() if not one.is_ready] == ["a-01"]
        assert [one.attempt_id for one in damaged.quarantined()] == ["a-01"]
        assert DelayKind.SET_ASIDE in [delay.kind for delay in damaged.status().delays]

    until_passed(damaged, "a-01", column="retry_at")
    [late] = damaged.sweep()
    assert late.is_ready
    assert damaged.quarantined() == []


def test_many_that_are_open_hold_up_no_other(damaged: rj.Journal, server_dsn: str) -> None:
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(16)]
    blocked = [f"a-{number:02}" for number in range(0, 16, 4)]

    with left_open(damaged, server_dsn, *blocked):
        swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert sorted(id_ for id_, one in swept.items() if not one.is_ready) == blocked


def test_after_the_limit_of_waits_a_sweep_says_so_and_the_next_continues(
    damaged: rj.Journal, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "TIMEOUT_LIMIT", 2)
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(4)]

    with left_open(damaged, server_dsn, "a-00"):
        with pytest.raises(rj.Retry):
            report(damaged, leases[0])
        monkeypatch.undo()
        damaged.sweep()

    ready = rows(damaged, "SELECT FROM leases WHERE status = 'ready'")
    assert len(ready) == len(leases) - 1


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_claims_pass_over_it(damaged: rj.Journal, server_dsn: str, limit: int) -> None:
    for number in range(6):
        make_ready(damaged, f"a-{number}")

    with left_open(damaged, server_dsn, "a-0"):
        won = [claim for _ in range(6) for claim in damaged.claim(worker_id="w-2", limit=limit)]

        assert sorted(claim.lease.attempt_id for claim in won) == [f"a-{n}" for n in range(1, 6)]
        for claim in won:
            claim.lease.complete(None)

    until_passed(damaged, "a-0", column="retry_at")
    assert claim_one(damaged).lease.attempt_id == "a-0"


def test_a_claim_that_cannot_be_given_back_loses_no_other(
    damaged: rj.Journal, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The insert comes between the claim and the query of what was claimed."""
    leases = [worked(held(damaged, f"a-{number}", worker_id="w-1")) for number in range(3)]
    report(damaged, leases[0])
    change(damaged, r"UPDATE run_steps SET output = '\x00' WHERE run_id = 'run of a-1'")
    record = Claims.quarantine_diverged

    with session(damaged, server_dsn) as other:

        def quarantine_diverged(claims: Claims, lease: Lease, problem: Any) -> None:
            other.execute(APPEND, [lease.attempt_id, next_version(damaged, lease.attempt_id)])
            record(claims, lease, problem)

        monkeypatch.setattr(Claims, "quarantine_diverged", quarantine_diverged)
        claims = damaged.claim(worker_id="w-2", limit=3)

        assert [claim.lease.attempt_id for claim in claims] == ["a-0", "a-2"]

    assert types_of(damaged, "a-1")[-1] == "Dispatched"


def test_it_holds_up_a_step_between_loss_and_dispatch_of_one_attempt_alone(
    damaged: rj.Journal, server_dsn: str
) -> None:
    """The sweeper has fenced them all when the append is opened."""
    schema = damaged.database.schema
    with session(damaged, server_dsn) as other:

        def open_one(taken: rj.StepTaken) -> None:
            if taken.step is rj.RecoveryStep.LEASE_EXPIRED:
                other.execute(APPEND, ["a-1", next_version(damaged, "a-1")])

        limits = rj.Limits(ttl_s=60.0)
        with rj.open(server_dsn, schema=schema, limits=limits, observer=open_one) as sweeper:
            leases = [held(sweeper, f"a-{number}", worker_id="w-1") for number in range(3)]
            swept = {one.attempt_id: one for one in report(sweeper, leases[0])}

        assert [swept[f"a-{number}"].is_ready for number in range(3)] == [True, False, True]
        assert [one.attempt_id for one in damaged.quarantined()] == ["a-1"]

    change(damaged, "UPDATE leases SET retry_at = clock_timestamp() WHERE attempt_id = 'a-1'")
    damaged.sweep()
    assert damaged.quarantined() == []


def test_a_worker_that_holds_another_attempt_ends_it_meanwhile(
    damaged: rj.Journal, server_dsn: str
) -> None:
    lease = held(damaged, "a-1")
    held(damaged, "a-2")

    with left_open(damaged, server_dsn, "a-2"):
        lease.record_step("step-1", 1)
        lease.complete(1)
        held(damaged, "a-3").complete(3)

    assert damaged.result("a-1") == 1


# After a restore ------------------------------------------------------------------------------

AT_ONCE_S = 5.0
"""Less than the ten seconds for which every other lock is waited for."""


def restore(journal: rj.Journal) -> rj.Restored:
    begun = time.monotonic()
    restored = journal.after_restore(by="ann", reason="of a backup", is_restored=True)
    assert time.monotonic() - begun < AT_ONCE_S
    return restored


@pytest.mark.parametrize("stream", ["a stream of no attempt", "a-ready", "a-ended"])
def test_a_restore_does_not_wait_for_it_where_nothing_is_held(
    damaged: rj.Journal, server_dsn: str, stream: str
) -> None:
    held(damaged, "a-1")
    make_ready(damaged, "a-ready")
    held(damaged, "a-ended").complete(None)

    with left_open(damaged, server_dsn, stream):
        restored = restore(damaged)

    assert (restored.is_done, restored.fenced_count) == (True, 1)
    assert [one.is_ready for one in restored.swept] == [True]


@pytest.mark.parametrize("count", [1, 2, FEW, 2 * FEW])
def test_a_restore_fences_all_and_recovers_all_others(
    damaged: rj.Journal, server_dsn: str, count: int
) -> None:
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(count)]

    with left_open(damaged, server_dsn, "a-00") as other:
        swept = {one.attempt_id: one for one in restore(damaged).swept}

        assert [id_ for id_, one in swept.items() if not one.is_ready] == ["a-00"]
        assert f"pg_terminate_backend({other.info.backend_pid})" in swept["a-00"].error
        for lease in leases:
            with pytest.raises(rj.LeaseLost):
                lease.heartbeat()

    until_passed(damaged, "a-00", column="retry_at")
    assert [one.is_ready for one in damaged.sweep()] == [True]
    [lost] = events_of(damaged, LeaseExpired, "a-00")
    assert (lost.loss, lost.reason) == ("handed_back", "after a restore: of a backup")
    assert damaged.recovery("a-00").recoveries_without_progress == 0


def test_after_the_limit_of_waits_a_restore_has_fenced_all_the_same(
    damaged: rj.Journal, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "TIMEOUT_LIMIT", 2)
    leases = [held(damaged, f"a-{number}", worker_id="w-1") for number in range(8)]

    with left_open(damaged, server_dsn, "a-0", "a-3", "a-6"):
        assert restore(damaged).is_done

    for lease in leases:
        with pytest.raises(rj.LeaseLost):
            lease.heartbeat()


def test_a_restore_takes_a_recovery_over_that_it_holds_up(
    damaged: rj.Journal, server_dsn: str
) -> None:
    class Died(Exception):
        pass

    def die(_taken: rj.StepTaken) -> None:
        raise Died

    schema = damaged.database.schema
    with rj.open(server_dsn, schema=schema, observer=die) as dying, pytest.raises(Died):
        report(dying, held(dying, "a-1"))

    with left_open(damaged, server_dsn, "a-1"):
        (left,) = restore(damaged).swept

    assert not left.is_ready
    change(damaged, "UPDATE leases SET retry_at = clock_timestamp() WHERE attempt_id = 'a-1'")
    assert [one.is_ready for one in damaged.sweep()] == [True]


def test_what_it_appends_after_all_is_read_and_folded_by_everybody(
    damaged: rj.Journal, server_dsn: str
) -> None:
    """Its position was drawn before the restore, and is below those that are given out since."""
    held(damaged, "a-1")
    with session(damaged, server_dsn) as other:
        tag, state = KINDS["confirmed"](damaged, "unknown")
        other.execute(APPEND_ANY, ["unknown", 1, tag, state])
        raised = restore(damaged).raised
        held(damaged, "a-2")
        other.commit()

    positions = [entry.position for entry in damaged.log(limit=100)]
    [late] = rows(
        damaged,
        "SELECT notification_id AS position FROM journal_events WHERE originator_id = 'unknown'",
    )
    assert raised is not None
    assert raised.positions.last < late["position"] < raised.positions.skipped_to
    assert late["position"] in positions
    assert positions == sorted(set(positions))
    after = damaged.reader.rows(late["position"], 10)
    assert [row.position for row in after] == [it for it in positions if it > late["position"]]
    with pytest.raises(TailLost):
        damaged.reader.rows(late["position"] + 1, 10)
    of_attempts = [entry for entry in damaged.log(limit=100) if entry.event.originator_id]
    assert damaged.rebuild().event_count == len(of_attempts)


def test_a_restore_that_is_followed_by_another_gives_no_number_out_twice(
    damaged: rj.Journal, server_dsn: str
) -> None:
    with left_open(damaged, server_dsn, "a stream of no attempt"):
        first, second = restore(damaged).raised, restore(damaged).raised

    assert first is not None
    assert second is not None
    assert second.positions.last >= first.positions.skipped_to
    assert second.epochs.last >= first.epochs.skipped_to


# Acts of people ---------------------------------------------------------------------------------


def test_an_act_of_a_person_names_who_has_the_next_place_of_the_journals_own_stream(
    damaged: rj.Journal, server_dsn: str
) -> None:
    held(damaged, "a-1")
    position = put(damaged, "a-1", "confirmed", b"no JSON")
    acts: list[Callable[[], rj.Skipped | rj.Restored]] = [
        lambda: damaged.skip(position, by="ann", reason="forged"),
        lambda: damaged.after_restore(by="ann", reason="of a backup", is_restored=True),
    ]

    with left_open(damaged, server_dsn, "") as other:
        role = other.info.user
        for act in acts:
            begun = time.monotonic()
            with pytest.raises(AppendBlocked) as blocked:
                act()
            assert time.monotonic() - begun < AT_ONCE_S
            assert f"process {other.info.backend_pid} (role {role}" in str(blocked.value)
            assert f"SELECT pg_terminate_backend({other.info.backend_pid})" in str(blocked.value)

    assert all(act().is_done for act in acts)


@pytest.mark.parametrize("act", ["cancel", "lift"])
def test_an_act_of_a_person_on_an_attempt_names_who_has_its_next_place(
    damaged: rj.Journal, server_dsn: str, act: str
) -> None:
    lease = worked(held(damaged, "a-1"))
    change(damaged, r"UPDATE checkpoints SET state = '\x00'")
    report(damaged, lease)
    by = {"by": "ann", "reason": "checked"}
    acts: dict[str, Callable[[], object]] = {
        "cancel": lambda: damaged.cancel("a-1", **by),
        "lift": lambda: damaged.lift_quarantine("a-1", "restart", **by),
    }

    with left_open(damaged, server_dsn, "a-1") as other:
        begun = time.monotonic()
        with pytest.raises(AppendBlocked, match=f"process {other.info.backend_pid} "):
            acts[act]()
        assert time.monotonic() - begun < AT_ONCE_S

    assert damaged.cancel("a-1", **by).stage is rj.Stage.ENDED


# Attempts still to be ---------------------------------------------------------------------------


def test_an_attempt_whose_first_place_is_taken_is_refused_at_once_and_others_are_not(
    damaged: rj.Journal, server_dsn: str
) -> None:
    with left_open(damaged, server_dsn, "a-1") as other:
        begun = time.monotonic()
        with pytest.raises(AppendBlocked, match=f"process {other.info.backend_pid}"):
            held(damaged, "a-1")
        held(damaged, "a-2")
        assert time.monotonic() - begun < AT_ONCE_S

    held(damaged, "a-1").complete(1)
    assert damaged.result("a-1") == 1


@pytest.mark.parametrize("kind", ["no JSON", "confirmed", "an unknown tag", "a second grant"])
def test_an_attempt_id_that_was_taken_is_refused_in_words_until_its_events_are_skipped(
    damaged: rj.Journal, kind: str
) -> None:
    for _ in range(2):
        position = forge(damaged, "a-1", kind)
        with pytest.raises(
            StreamOccupied, match=rf"history a-1`.* `recovery-journal skip {position}`"
        ):
            held(damaged, "a-1")
        damaged.skip(position, by="ann", reason="forged")

    lease = worked(held(damaged, "a-1"))

    assert [entry.is_skipped for entry in damaged.history("a-1")[:3]] == [True, True, False]
    report(damaged, lease)
    claim_one(damaged).lease.complete("done")
    damaged.rebuild()
    assert [one.difference_count for one in damaged.check()] == [0] * len(damaged.projections)
    assert damaged.result("a-1") == "done"
    assert damaged.after_restore(by="ann", reason="to be sure").differences == ()


def test_of_several_events_before_a_grant_each_is_named_until_all_are_skipped(
    damaged: rj.Journal,
) -> None:
    positions = [forge(damaged, "a-1", "no JSON") for _ in range(3)]

    for position in positions:
        with pytest.raises(StreamOccupied, match=f"position {position}, "):
            held(damaged, "a-1")
        damaged.skip(position, by="ann", reason="forged")

    assert held(damaged, "a-1").terms.attempt_id == "a-1"


def test_a_grant_behind_skipped_events_is_found_again_after_a_lost_reply(
    damaged: rj.Journal,
) -> None:
    damaged.skip(forge(damaged, "a-1", "no JSON"), by="ann", reason="forged")

    first = held(damaged, "a-1", event_id="e-1")
    again = held(damaged, "a-1", event_id="e-1")

    assert again.terms.fence == first.terms.fence
    with pytest.raises(rj.AttemptExists):
        held(damaged, "a-1", event_id="e-2")


def test_a_run_whose_attempt_id_was_taken_is_free_for_another(damaged: rj.Journal) -> None:
    forge(damaged, "a-1", "no JSON")

    with pytest.raises(StreamOccupied):
        held(damaged, "a-1", run_id="r-1")

    assert held(damaged, "a-2", run_id="r-1").terms.run_id == "r-1"
