"""Rule R5: a call whose request or reply was lost on the way happens once, and its caller knows."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import ServerUnavailable
from tests.relays.lossy_proxy import LossyProxy, Lost
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import (
    LIMIT_S,
    LIMITS,
    OpenJournal,
    change,
    claim_one,
    held,
    make_ready,
    report,
    rows,
    sum_up,
    sweep_until,
    types_of,
    until,
    worked,
)

SHORT_SWEEPS = rj.Limits(ttl_s=60.0, grace_s=0.0, sweeper_ttl_s=0.1)
BY = {"by": "on-call", "reason": "checked"}


@pytest.fixture
def proxy(server_dsn: str) -> Iterator[LossyProxy]:
    with LossyProxy.before(server_dsn) as proxy:
        yield proxy


@pytest.fixture
def remote(journal: rj.Journal, proxy: LossyProxy) -> Iterator[rj.Journal]:
    """A journal on the other side of the proxy; the schema is checked in the end."""
    with rj.open(proxy.dsn, schema=journal.database.schema, limits=LIMITS) as remote:
        yield remote
        assert_in_step(remote)


lost = pytest.mark.parametrize("lost", list(Lost))


def count(journal: rj.Journal, table: str) -> int:
    return int(rows(journal, f"SELECT count(*) AS count FROM {table}")[0]["count"])  # noqa: S608


@lost
def test_an_attempt_is_acquired_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    proxy.lose(b"COMMIT", lost)

    lease = held(remote)

    assert proxy.loss_count == 1
    assert types_of(remote) == ["LeaseGranted"]
    lease.record_step("it is ours", {})


def test_an_attempt_acquired_again_under_its_event_id_is_the_same_lease(
    journal: rj.Journal,
) -> None:
    first = held(journal, event_id="acquire-1")
    first.record_step("step-1", {"n": 1})

    again = held(journal, event_id="acquire-1")

    assert (again.fence, again.progress) == (first.fence, first.progress)
    again.record_step("step-2", {"n": 2})
    assert types_of(journal) == ["LeaseGranted", "Confirmed"]


def test_damage_of_a_run_says_nothing_of_an_attempt_that_was_opened_before_it(
    journal: rj.Journal,
) -> None:
    """Found by `scripts/simulate`, seed 179."""
    first = worked(held(journal, event_id="acquire-1"))
    change(journal, r"UPDATE checkpoints SET state = '\x00'")

    assert held(journal, event_id="acquire-1").fence == first.fence
    with pytest.raises(rj.AttemptExists):
        held(journal, event_id="acquire-2")


@pytest.mark.parametrize(
    "end",
    [
        lambda lease: lease.complete("done"),
        lambda lease: lease.fail("broken"),
        lambda lease: lease.wait("look"),
        lambda lease: lease.hand_back(),
    ],
)
def test_an_event_id_does_not_bring_back_a_lease_that_was_given_up(
    journal: rj.Journal, end: Callable[[rj.Lease], object]
) -> None:
    end(held(journal, event_id="acquire-1"))

    with pytest.raises(rj.AttemptExists, match="never acquired"):
        held(journal, event_id="acquire-1")


@lost
@pytest.mark.parametrize("event_id", [None, "claim-1"])
def test_a_claim_wins_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost, event_id: str | None
) -> None:
    for attempt_id in ("a-1", "a-2"):
        make_ready(remote, attempt_id)
    proxy.lose(b"COMMIT", lost)

    claim = claim_one(remote, event_id=event_id)

    assert proxy.loss_count == 1
    # After a lost request the server may hold its locks for a moment, and the second try passes
    # over the first attempt.
    won = [id_ for id_ in ("a-1", "a-2") if "Dispatched" in types_of(remote, id_)]
    assert won == [claim.lease.attempt_id]
    claim.lease.complete("it is ours")
    assert len(remote.dispatch_ready()) == 1


@lost
@pytest.mark.parametrize("is_confirmed", [True, False])
@pytest.mark.parametrize(
    ("pattern", "table", "write"),
    [
        (b"INTO run_steps", "run_steps", lambda lease: lease.record_step("step", {"n": 1})),
        (b"INTO checkpoints", "checkpoints", lambda lease: lease.checkpoint({"sum": 1})),
    ],
)
def test_a_write_is_made_once(
    remote: rj.Journal,
    proxy: LossyProxy,
    lost: Lost,
    *,
    is_confirmed: bool,
    pattern: bytes,
    table: str,
    write: Callable[[rj.Lease], Any],
) -> None:
    lease = held(remote)
    if is_confirmed:
        worked(lease)
    before = count(remote, table)
    # The first write under a fence is committed together with its event.
    proxy.lose(pattern if is_confirmed else b"COMMIT", lost)

    write(lease)

    assert proxy.loss_count == 1
    assert count(remote, table) == before + 1
    assert types_of(remote) == ["LeaseGranted", "Confirmed"]
    lease.record_step("and continues", {"n": 2})
    report(remote, lease)
    assert types_of(remote)[-1] == "ReadyForDispatch"


@lost
def test_an_announcement_is_made_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    lease = held(remote)
    proxy.lose(b"INTO announcements", lost)

    assert lease.begin_step("charge") == "run of a-1/1"

    assert proxy.loss_count == 1
    assert count(remote, "announcements") == 1


@lost
def test_a_heartbeat_is_renewed(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    lease = held(remote)
    proxy.lose(b"UPDATE leases", lost)

    assert lease.heartbeat().ordinal == 0

    assert proxy.loss_count == 1


ENDINGS: dict[str, Callable[[rj.Lease], object]] = {
    "completed": lambda lease: lease.complete({"sum": 3}),
    "failed": lambda lease: lease.fail(ValueError("broken")),
    "waiting": lambda lease: lease.wait("inspect it"),
}


@lost
@pytest.mark.parametrize("status", ENDINGS)
def test_a_lease_ends_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost, status: str) -> None:
    lease = worked(held(remote))
    proxy.lose(b"COMMIT", lost)

    ENDINGS[status](lease)

    assert proxy.loss_count == 1
    assert types_of(remote) == ["LeaseGranted", "Confirmed", "LeaseEnded"]
    assert rows(remote, "SELECT status FROM leases") == [{"status": status}]


@lost
def test_the_result_of_a_completion_is_kept(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost
) -> None:
    lease = held(remote)
    proxy.lose(b"COMMIT", lost)

    digest = lease.complete({"sum": 3})

    (row,) = rows(remote, "SELECT result_digest, result IS NOT NULL AS is_kept FROM leases")
    assert row == {"result_digest": digest, "is_kept": True}


@lost
def test_a_lease_is_handed_back_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    lease = worked(held(remote))
    proxy.lose(b"COMMIT", lost)

    lease.hand_back("draining")

    assert proxy.loss_count == 1
    assert types_of(remote)[2:] == [
        "LeaseExpired",
        "CheckpointReloaded",
        "Replayed",
        "ReadyForDispatch",
    ]


@lost
def test_a_death_is_reported_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    lease = worked(held(remote))
    died: dict[str, Any] = {"worker_id": lease.worker_id, "incarnation": rj.incarnation()}
    proxy.lose(b"COMMIT", lost)

    with pytest.raises(ServerUnavailable):
        remote.report_lost(**died, reason="pod deleted")
    remote.report_lost(**died, reason="pod deleted")

    assert proxy.loss_count == 1
    assert types_of(remote).count("LeaseExpired") == 1


@lost
def test_a_refusal_is_recorded_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    lease = worked(held(remote))
    report(remote, lease)
    proxy.lose(b"COMMIT", lost)

    with pytest.raises(rj.LeaseLost):
        lease.record_step("too late", {})

    assert proxy.loss_count == 1
    assert types_of(remote).count("StaleWriteRefused") == 1


@lost
def test_a_claim_of_many_wins_each_once(remote: rj.Journal, proxy: LossyProxy, lost: Lost) -> None:
    attempts = [f"a-{number}" for number in range(1, 41)]  # so many that they are copied in
    for attempt_id in attempts:
        make_ready(remote, attempt_id)
    proxy.lose(b"COMMIT", lost)

    claims = remote.claim(worker_id="w-2", limit=len(attempts))

    assert proxy.loss_count == 1
    won = [id_ for id_ in attempts if types_of(remote, id_).count("Dispatched") == 1]
    assert sorted(won) == sorted(claim.lease.attempt_id for claim in claims)
    for claim in claims:
        claim.lease.complete("it is ours")


# Its own second try is lost as well, so the caller gets the error, and retries.
RETRIED: dict[str, tuple[bytes, Callable[[rj.Lease], object], str, int]] = {
    "heartbeat": (b"UPDATE leases", lambda lease: lease.heartbeat(), "leases", 1),
    "announcement": (
        b"INTO announcements",
        lambda lease: lease.begin_step("charge"),
        "announcements",
        1,
    ),
    "run step": (
        b"INTO run_steps",
        lambda lease: lease.record_step("charge", {"n": 3}),
        "run_steps",
        3,
    ),
    "checkpoint": (
        b"INTO checkpoints",
        lambda lease: lease.checkpoint({"sum": 3}),
        "checkpoints",
        2,
    ),
    "completion": (
        b"COMMIT",
        lambda lease: lease.complete({"sum": 3}),
        "leases WHERE result IS NOT NULL",
        1,
    ),
}


@lost
@pytest.mark.parametrize("write", RETRIED)
def test_a_write_that_its_caller_asks_for_again_is_made_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost, write: str
) -> None:
    pattern, make, table, needed = RETRIED[write]
    lease = worked(held(remote))
    proxy.lose(pattern, lost, times=2)

    with pytest.raises(ServerUnavailable):
        make(lease)
    make(lease)

    assert proxy.loss_count == 2
    assert count(remote, table) == needed
    expected = ["LeaseGranted", "Confirmed", *(["LeaseEnded"] if write == "completion" else [])]
    assert types_of(remote) == expected
    if write != "completion":
        lease.complete("and continues")


@lost
@pytest.mark.parametrize("write", ["run step", "checkpoint"])
def test_a_first_write_that_its_caller_asks_for_again_confirms_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost, write: str
) -> None:
    _, make, _, _ = RETRIED[write]
    lease = held(remote)
    proxy.lose(b"COMMIT", lost, times=2)

    with pytest.raises(ServerUnavailable):
        make(lease)
    make(lease)

    assert proxy.loss_count == 2
    lease.record_step("and continues", {"n": 2})
    assert types_of(remote) == ["LeaseGranted", "Confirmed"]


@lost
def test_an_acquisition_that_its_caller_asks_for_again_grants_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost
) -> None:
    proxy.lose(b"COMMIT", lost, times=2)

    with pytest.raises(ServerUnavailable):
        held(remote, event_id="acquire-1")
    lease = held(remote, event_id="acquire-1")

    assert proxy.loss_count == 2
    assert types_of(remote) == ["LeaseGranted"]
    lease.complete("it is ours")


@lost
def test_a_claim_that_its_caller_asks_for_again_wins_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost
) -> None:
    make_ready(remote, "a-1")
    proxy.lose(b"COMMIT", lost, times=2)

    with pytest.raises(ServerUnavailable):
        remote.claim(worker_id="w-2", event_id="claim-1")
    until(lambda: not transaction_count(remote), "the server to forget the lost transactions")
    (claim,) = remote.claim(worker_id="w-2", event_id="claim-1")

    assert proxy.loss_count == 2
    assert types_of(remote).count("Dispatched") == 1
    claim.lease.complete("it is ours")


def transaction_count(journal: rj.Journal) -> int:
    """How many sessions are still in a transaction, beside the one that asks."""
    query = """
        SELECT count(*) AS count
        FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'
    """
    return int(rows(journal, query)[0]["count"])


@lost
def test_a_lease_that_its_worker_hands_back_again_is_lost_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost
) -> None:
    lease = worked(held(remote))
    proxy.lose(b"COMMIT", lost, times=2)

    with pytest.raises(ServerUnavailable):
        lease.hand_back("draining")
    with suppress(rj.LeaseLost):  # where it was done, it is not ours any more
        lease.hand_back("draining")

    assert proxy.loss_count == 2
    assert types_of(remote).count("LeaseExpired") == 1
    assert types_of(remote).count("LeaseGranted") == 1


@lost
def test_a_batch_of_a_follower_is_folded_once(
    journal: rj.Journal, remote: rj.Journal, proxy: LossyProxy, lost: Lost
) -> None:
    report(journal, worked(held(journal)))
    follower = rj.Follower(remote)
    proxy.lose(b"COMMIT", lost)

    with pytest.raises(ServerUnavailable):
        follower.step()
    follower.catch_up(LIMIT_S)

    assert proxy.loss_count == 1
    assert all(one.is_right and not one.pending_count for one in journal.check())


def resume(journal: rj.Journal) -> None:
    held(journal).wait("inspect it")


def lift(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    change(journal, r"UPDATE checkpoints SET state = '\x00'")
    report(journal, lease)


PERSONS: dict[str, tuple[Callable[[rj.Journal], object], Callable[[rj.Journal], object]]] = {
    "LeaseEnded": (held, lambda journal: journal.cancel("a-1", **BY)),
    "Resumed": (resume, lambda journal: journal.resume("a-1", **BY)),
    "QuarantineLifted": (lift, lambda journal: journal.lift_quarantine("a-1", "restart", **BY)),
}


@lost
@pytest.mark.parametrize("event", PERSONS)
def test_what_a_person_does_happens_once(
    remote: rj.Journal, proxy: LossyProxy, lost: Lost, event: str
) -> None:
    prepare, act = PERSONS[event]
    prepare(remote)
    before = types_of(remote).count(event)
    proxy.lose(b"COMMIT", lost)

    act(remote)

    assert proxy.loss_count == 1
    assert types_of(remote).count(event) == before + 1
    if event != "LeaseEnded":
        assert types_of(remote)[-1] == "ReadyForDispatch"


@lost
@pytest.mark.parametrize("after", range(4))
def test_a_recovery_that_lost_a_commit_continues_and_takes_every_step_once(
    open_journal: OpenJournal, proxy: LossyProxy, lost: Lost, after: int
) -> None:
    journal = open_journal(limits=SHORT_SWEEPS, reducers={"sum": sum_up})
    schema = journal.database.schema
    with rj.open(proxy.dsn, schema=schema, limits=SHORT_SWEEPS) as remote:
        lease = worked(held(remote, kind="sum"))
        marked = "UPDATE leases SET loss = 'reported', loss_reason = 'pod deleted'"
        change(journal, marked)
        # One transaction looks whether there is anything to take, one asks for the fleet.
        proxy.lose(b"COMMIT", lost, after=2 + after)

        with pytest.raises(ServerUnavailable):
            remote.sweep()

    change(journal, "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour'")
    until_swept(journal)
    steps = [name for name in types_of(journal) if name in STEPS]
    assert steps == STEPS
    assert claim_one(journal).tail[-1].ordinal == lease.progress.ordinal


STEPS = ["LeaseExpired", "CheckpointReloaded", "Replayed", "ReadyForDispatch"]


def until_swept(journal: rj.Journal) -> None:
    if types_of(journal)[-1] != "ReadyForDispatch":
        assert sweep_until(journal).is_ready


def test_the_proxy_loses_what_it_says(journal: rj.Journal, proxy: LossyProxy) -> None:
    with rj.open(proxy.dsn, schema=journal.database.schema) as remote:
        for loss, is_done in ((Lost.REQUEST, False), (Lost.REPLY, True)):
            proxy.lose(b"CREATE SEQUENCE", loss)
            with pytest.raises(ServerUnavailable):
                change(remote, "CREATE SEQUENCE lost")
            found = rows(journal, "SELECT to_regclass('lost') IS NOT NULL AS found")
            assert found == [{"found": is_done}]


def test_only_the_same_decision_counts_as_done(journal: rj.Journal) -> None:
    held(journal, event_id="acquire-1")

    with pytest.raises(rj.AttemptExists):
        held(journal, event_id="acquire-2")

    assert types_of(journal) == ["LeaseGranted"]
