"""Rule R9: an outage of the server is no worker's death; a true death is found all the same."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import ServerExhausted, ServerUnavailable
from recovery_journal.domain.events import LeaseExpired, Seized
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    events_of,
    held,
    rows,
    sweep_until,
    types_of,
    until,
    worked,
)
from tests.servers import PrivateServer, server_started_at

TTL_S = 0.5
GRACE_S = 0.2
LIMITS = rj.Limits(ttl_s=TTL_S, grace_s=GRACE_S, sweeper_ttl_s=TTL_S)
CUT = "SELECT pg_terminate_backend(%(pid)s)"


@pytest.fixture
def server_of_one(private_server: PrivateServer) -> Iterator[tuple[PrivateServer, rj.Journal]]:
    with rj.open(private_server.dsn, limits=LIMITS) as journal:
        yield private_server, journal
        assert_in_step(journal)


def reconnect(journal: rj.Journal) -> None:
    """A process's own connection is found cut at its next call."""
    with suppress(ServerUnavailable):
        server_started_at(journal.database)


def make_it_long_ago(journal: rj.Journal) -> None:
    """As if the server had been away for an hour; only the leases' expiry is moved."""
    change(journal, "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour'")


def assert_lost_no_sooner(journal: rj.Journal, than: datetime) -> None:
    (lost,) = events_of(journal, LeaseExpired)
    assert lost.lease.seen_at - than > timedelta(seconds=TTL_S + GRACE_S)


def test_nothing_is_lost_within_a_ttl_and_grace_of_a_servers_start(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, journal = server_of_one
    alive, dead = held(journal, "alive"), held(journal, "a-1")
    journal.sweep()
    make_it_long_ago(journal)

    server.restart()
    reconnect(journal)

    assert journal.sweep() == []
    alive.heartbeat()
    started = server_started_at(journal.database)
    sweep_until(journal)
    assert_lost_no_sooner(journal, started)
    with pytest.raises(rj.LeaseLost):
        dead.heartbeat()


def test_a_server_down_for_longer_than_a_ttl_kills_no_worker(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, journal = server_of_one
    lease = worked(held(journal))
    expires_at = journal.adopt(lease.terms).heartbeat().expires_at
    server.kill()

    # As long away as the lease held, and longer; its worker asks in vain.
    with pytest.raises(ServerUnavailable):
        lease.heartbeat()
    until(lambda: datetime.now(expires_at.tzinfo) > expires_at + timedelta(seconds=GRACE_S), "TTL")
    server.start()
    reconnect(journal)
    # Its process may start long before it answers, as after a crash.
    until(lambda: is_up_for_a_while(journal), "what a slow start takes")

    assert journal.sweep() == []
    lease.record_step("step-3", {"n": 3})
    lease.complete("the same worker")
    assert types_of(journal) == ["LeaseGranted", "Confirmed", "LeaseEnded"]


def test_a_new_sweeper_gives_a_restarted_servers_leases_their_time_too(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, journal = server_of_one
    held(journal)
    make_it_long_ago(journal)
    server.restart()

    with rj.open(server.dsn, limits=LIMITS) as sweeper:
        started = server_started_at(sweeper.database)
        assert sweeper.sweep() == []
        sweep_until(sweeper)

        assert_lost_no_sooner(sweeper, started)
    reconnect(journal)


def test_a_recovery_is_not_taken_over_because_the_server_was_away(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, journal = server_of_one
    held(journal)

    def restart(_step: rj.StepTaken) -> None:
        server.restart()

    with (
        rj.open(server.dsn, limits=LIMITS, observer=restart) as sweeper,
        pytest.raises(ServerUnavailable),
    ):
        sweep_until(sweeper)
    reconnect(journal)
    make_it_long_ago(journal)
    started = server_started_at(journal.database)

    assert journal.sweep() == []
    sweep_until(journal)

    (seized,) = [entry for entry in journal.history("a-1") if isinstance(entry.event, Seized)]
    assert seized.recorded_at - started > timedelta(seconds=TTL_S + GRACE_S)


def test_nothing_is_lost_within_a_ttl_and_grace_of_a_sweepers_reconnect(
    open_journal: OpenJournal,
) -> None:
    sweeper, other = open_journal(limits=LIMITS), open_journal()
    until(lambda: is_up_for_a_while(sweeper), "the server to be up for a while")
    held(sweeper)
    assert sweeper.sweep() == []
    make_it_long_ago(sweeper)

    change(other, CUT, {"pid": sweeper.database.connection().info.backend_pid})
    reconnect(sweeper)
    (cut_at,) = rows(sweeper, "SELECT clock_timestamp() AS now")

    assert sweeper.sweep() == []
    sweep_until(sweeper)
    assert_lost_no_sooner(sweeper, cut_at["now"])


TAKE_ALL_LOCKS = "SELECT count(pg_advisory_lock(one)) FROM generate_series(1, 1000000) AS one"


@contextmanager
def no_lock_left(dsn: str) -> Iterator[None]:
    """A stranger, who may merely connect, holds every lock that the server has room for."""
    with psycopg.connect(dsn, autocommit=True) as stranger:
        with suppress(psycopg.errors.OutOfMemory):
            stranger.execute(TAKE_ALL_LOCKS)
        yield
        stranger.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize(
    "call",
    [
        lambda journal, _lease: journal.sweep(),
        lambda _journal, lease: lease.record_step("it", 1),
        lambda journal, _lease: journal.acquire(attempt_id="a-2", run_id="r-2", worker_id="w-2"),
    ],
    ids=["sweep", "record a run step", "acquire"],
)
def test_a_server_that_has_nothing_left_is_named_as_such(
    server_of_one: tuple[PrivateServer, rj.Journal],
    call: Callable[[rj.Journal, rj.Lease], object],
) -> None:
    server, journal = server_of_one
    lease = held(journal)
    said = "cannot use .* out of shared memory.*pg_locks"
    with no_lock_left(server.dsn), pytest.raises(ServerExhausted, match=said):
        call(journal, lease)


def test_nothing_is_lost_within_a_ttl_and_grace_of_a_servers_exhaustion(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, sweeper = server_of_one
    until(lambda: is_up_for_a_while(sweeper), "the server to be up for a while")
    held(sweeper)
    assert sweeper.sweep() == []
    with no_lock_left(server.dsn), pytest.raises(ServerExhausted):
        sweeper.sweep()
    make_it_long_ago(sweeper)
    (over_at,) = rows(sweeper, "SELECT clock_timestamp() AS now")

    assert sweeper.sweep() == []
    sweep_until(sweeper)
    assert_lost_no_sooner(sweeper, over_at["now"])


def test_a_stranger_who_takes_all_locks_again_and_again_kills_no_worker(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, sweeper = server_of_one
    until(lambda: is_up_for_a_while(sweeper), "the server to be up for a while")
    lease = held(sweeper)
    for _ in range(4):
        with no_lock_left(server.dsn):
            ends_at = time.monotonic() + 2 * (TTL_S + GRACE_S)
            while time.monotonic() < ends_at:
                with suppress(ServerExhausted):
                    sweeper.sweep()
        assert sweeper.sweep() == []
        lease.heartbeat()

    lease.complete()


def is_up_for_a_while(journal: rj.Journal) -> bool:
    query = """
        SELECT clock_timestamp() - pg_postmaster_start_time() > %(wait)s AS is_past
    """
    wait = timedelta(seconds=2 * (TTL_S + GRACE_S))
    return bool(rows(journal, query, {"wait": wait})[0]["is_past"])


def test_a_worker_that_was_cut_off_continues_under_its_lease(open_journal: OpenJournal) -> None:
    worker, other = open_journal(), open_journal()
    lease = worked(held(worker))

    for write in (lease.heartbeat, lambda: lease.record_step("step-3", {"n": 3}), lease.complete):
        call: Callable[[], Any] = write
        change(other, CUT, {"pid": worker.database.connection().info.backend_pid})
        call()

    assert types_of(other) == ["LeaseGranted", "Confirmed", "LeaseEnded"]


def test_a_server_killed_between_two_steps_of_a_recovery_loses_neither(
    server_of_one: tuple[PrivateServer, rj.Journal],
) -> None:
    server, journal = server_of_one
    worked(held(journal))
    kills = iter([server.kill])

    def kill_once(_step: rj.StepTaken) -> None:
        for kill in kills:
            kill()
            server.start()

    with rj.open(server.dsn, limits=LIMITS, observer=kill_once) as sweeper:
        with pytest.raises(ServerUnavailable):
            sweep_until(sweeper)
        sweep_until(sweeper)
    reconnect(journal)

    steps = [name for name in types_of(journal)[2:] if name != "Seized"]
    assert steps == ["LeaseExpired", "CheckpointReloaded", "Replayed", "ReadyForDispatch"]
    assert [step.ordinal for step in claim_one(journal).tail] == [2]
