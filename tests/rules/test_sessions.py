"""A lease is lost by the end of its worker's session only where nothing else can explain it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.domain.events import LeaseExpired
from recovery_journal.store.lease import Lease
from recovery_journal.worker.session_lock import SessionLock
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import (
    OpenJournal,
    change,
    events_of,
    held,
    make_ready,
    rows,
    sweep_until,
    types_of,
    until,
)
from tests.servers import PrivateServer, server_started_at

GRACE_S = 0.05
LIMITS = rj.Limits(grace_s=0.2, session_grace_s=GRACE_S)
CUT = "SELECT pg_terminate_backend(%(pid)s)"

TakeLock = Callable[[rj.Journal], SessionLock]


@pytest.fixture
def take_lock() -> Iterator[TakeLock]:
    """Takes session locks, as a worker does when it starts."""
    with ExitStack() as taken:

        def take(journal: rj.Journal) -> SessionLock:
            lock = SessionLock(journal.database)
            taken.callback(lock.close)
            assert lock.take()
            return lock

        yield take


@pytest.fixture
def journal(open_journal: OpenJournal) -> rj.Journal:
    return open_journal(limits=LIMITS)


def declared(journal: rj.Journal, lock: SessionLock, attempt_id: str = "a-1") -> Lease:
    """An attempt held by a worker that has declared its session lock."""
    lease = held(journal, attempt_id)
    lease.heartbeat(session_lock=lock.number)
    return lease


def end(journal: rj.Journal, lock: SessionLock) -> None:
    """End the session, as the server does when the process dies."""
    query = """
        SELECT count(*) AS count
        FROM pg_locks
        WHERE locktype = 'advisory'
            AND classid = 'session_locks'::regclass
            AND objid::bigint = %(number)s
    """
    ending = {"number": lock.number}
    lock.close()
    until(lambda: rows(journal, query, ending)[0]["count"] == 0, "the server to drop it")


def sweep_beyond_the_grace(journal: rj.Journal) -> list[rj.SweepResult]:
    """Sweep again and again for several times the grace, as the database's clock has it."""
    swept: list[rj.SweepResult] = []
    deadline = journal.now() + timedelta(seconds=5 * GRACE_S)
    while journal.now() < deadline:
        swept += journal.sweep()
    return swept


def test_a_worker_whose_session_ends_loses_its_leases_with_the_evidence(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock, other = take_lock(journal), take_lock(journal)
    number = lock.number
    lease, alive = declared(journal, lock), declared(journal, other, "alive")
    assert journal.sweep() == []

    end(journal, lock)

    assert sweep_until(journal).is_ready
    (lost,) = events_of(journal, LeaseExpired)
    assert lost.loss is rj.LossReason.SESSION_LOST
    assert lost.session is not None
    assert (lost.session.session_lock, lost.session.grace_s) == (number, GRACE_S)
    assert lost.session.held_at < lost.session.gone_at
    assert lost.lease.seen_at - lost.session.gone_at >= timedelta(seconds=GRACE_S)
    assert lost.lease.expires_at > lost.lease.seen_at
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    alive.heartbeat()
    assert types_of(journal, "alive") == ["LeaseGranted"]


def test_a_loss_by_ttl_has_no_session_as_evidence(journal: rj.Journal, take_lock: TakeLock) -> None:
    lock = take_lock(journal)
    lease = held(journal, ttl=timedelta(milliseconds=100))
    lease.heartbeat(session_lock=lock.number)
    change(journal, "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour'")

    sweep_until(journal)

    (lost,) = events_of(journal, LeaseExpired)
    assert (lost.loss, lost.session) == (rj.LossReason.TTL, None)


def test_a_lock_that_was_never_seen_held_proves_nothing(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock = take_lock(journal)
    declared(journal, lock)
    end(journal, lock)

    assert sweep_beyond_the_grace(journal) == []


def test_a_lease_that_declares_no_lock_is_left_to_its_ttl(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock = take_lock(journal)
    held(journal)
    journal.sweep()
    end(journal, lock)

    assert sweep_beyond_the_grace(journal) == []


@pytest.mark.parametrize("has_another", [True, False])
def test_a_living_worker_declares_its_next_lock_or_none(
    journal: rj.Journal, take_lock: TakeLock, *, has_another: bool
) -> None:
    lock = take_lock(journal)
    lease = declared(journal, lock)
    journal.sweep()

    end(journal, lock)
    journal.sweep()
    lease.heartbeat(session_lock=take_lock(journal).number if has_another else None)

    assert sweep_beyond_the_grace(journal) == []
    lease.complete()


def test_a_write_that_comes_late_from_the_dead_does_not_hide_the_death(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock = take_lock(journal)
    lease = declared(journal, lock)
    journal.sweep()

    end(journal, lock)
    journal.sweep()
    lease.record_step("was under way when its process died")

    sweep_until(journal)
    (lost,) = events_of(journal, LeaseExpired)
    assert lost.loss is rj.LossReason.SESSION_LOST


def test_a_sweeper_that_was_cut_off_itself_believes_nothing_of_before(
    open_journal: OpenJournal, take_lock: TakeLock
) -> None:
    sweeper, other = open_journal(limits=LIMITS), open_journal()
    lock = take_lock(other)
    declared(other, lock)
    sweeper.sweep()

    end(other, lock)
    sweeper.sweep()
    change(other, CUT, {"pid": sweeper.database.connection().info.backend_pid})
    with suppress(ServerUnavailable):
        server_started_at(sweeper.database)

    assert sweep_beyond_the_grace(sweeper) == []


def test_of_two_sweepers_one_takes_it_back(open_journal: OpenJournal, take_lock: TakeLock) -> None:
    first, second = open_journal(limits=LIMITS), open_journal(limits=LIMITS)
    lock = take_lock(first)
    declared(first, lock)
    first.sweep()
    second.sweep()

    end(first, lock)
    swept: list[rj.SweepResult] = []
    while not swept:
        swept += first.sweep() + second.sweep()
    swept += sweep_beyond_the_grace(first) + sweep_beyond_the_grace(second)

    assert [one.attempt_id for one in swept] == ["a-1"]
    assert len(events_of(first, LeaseExpired)) == 1


def test_the_next_holder_has_to_declare_its_own_lock(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock = take_lock(journal)
    declared(journal, lock)
    journal.sweep()
    end(journal, lock)
    sweep_until(journal)

    (claim,) = journal.claim(worker_id="w-2")

    assert sweep_beyond_the_grace(journal) == []
    claim.lease.complete()


def test_a_claim_declares_the_lock_in_its_own_transaction(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    lock = take_lock(journal)
    make_ready(journal, "a-1")
    journal.sweep()

    journal.claim(worker_id="w-2", session_lock=lock.number)
    end(journal, lock)

    sweep_until(journal)
    assert events_of(journal, LeaseExpired)[-1].loss is rj.LossReason.SESSION_LOST


def test_a_death_that_was_reported_stays_reported(journal: rj.Journal, take_lock: TakeLock) -> None:
    lock = take_lock(journal)
    lease = declared(journal, lock)
    journal.sweep()
    end(journal, lock)
    journal.sweep()

    journal.report_lost(worker_id=lease.worker_id, reason="pod deleted")

    (lost,) = events_of(journal, LeaseExpired)
    assert (lost.loss, lost.session) == (rj.LossReason.REPORTED, None)


def test_locks_of_strangers_are_none_of_ours(journal: rj.Journal, server_dsn: str) -> None:
    number = 1
    lease = held(journal)
    lease.heartbeat(session_lock=number)
    with psycopg.connect(server_dsn, autocommit=True) as stranger:
        stranger.execute("SELECT pg_advisory_lock(%s), pg_advisory_lock(0, %s)", (number, number))
        journal.sweep()

    assert sweep_beyond_the_grace(journal) == []


def test_most_of_a_fleet_that_dies_is_a_loss_of_the_fleet(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    locks = [take_lock(journal) for _ in range(5)]
    for number, lock in enumerate(locks):
        declared(journal, lock, f"a-{number}")
    journal.sweep()

    # The looks fall between the deaths, as they do when hundreds of processes die.
    end(journal, locks[0])
    journal.sweep()
    for lock in locks[1:4]:
        end(journal, lock)
    swept: list[rj.SweepResult] = []
    while len(swept) < 4:
        swept += journal.sweep()

    for number in range(4):
        (lost,) = events_of(journal, LeaseExpired, f"a-{number}")
        assert (lost.loss, lost.is_fleet_wide) == (rj.LossReason.SESSION_LOST, True)
        assert journal.recovery(f"a-{number}").recoveries_without_progress == 0
    assert types_of(journal, "a-4") == ["LeaseGranted"]


def test_who_dies_a_moment_after_most_of_the_fleet_died_with_it(
    journal: rj.Journal, take_lock: TakeLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.domain.session_observations.TOGETHER", timedelta(hours=1))
    locks = [take_lock(journal) for _ in range(5)]
    for number, lock in enumerate(locks):
        declared(journal, lock, f"a-{number}")
    journal.sweep()
    for lock in locks[1:4]:
        end(journal, lock)
    swept: list[rj.SweepResult] = []
    while len(swept) < 3:
        swept += journal.sweep()

    end(journal, locks[0])
    sweep_until(journal, "a-0")

    (lost,) = events_of(journal, LeaseExpired, "a-0")
    assert lost.is_fleet_wide


def test_one_of_many_that_dies_is_no_loss_of_the_fleet(
    journal: rj.Journal, take_lock: TakeLock
) -> None:
    locks = [take_lock(journal) for _ in range(5)]
    for number, lock in enumerate(locks):
        declared(journal, lock, f"a-{number}")
    journal.sweep()

    end(journal, locks[0])
    sweep_until(journal, "a-0")

    (lost,) = events_of(journal, LeaseExpired, "a-0")
    assert not lost.is_fleet_wide
    assert journal.recovery("a-0").recoveries_without_progress == 1


def test_a_poll_says_when_to_observe_again(journal: rj.Journal, take_lock: TakeLock) -> None:
    lock = take_lock(journal)
    declared(journal, lock)
    assert journal.watch_sessions() == journal.limits.session_poll_s
    end(journal, lock)

    assert 0 < journal.watch_sessions() <= GRACE_S
    until(lambda: journal.watch_sessions() == 0, "the end to be believed")

    assert [swept.attempt_id for swept in journal.sweep()] == ["a-1"]


@pytest.mark.parametrize("how", ["restart", "kill", "crash of a backend"])
def test_what_ends_all_sessions_at_once_is_nobodys_death(
    private_server: PrivateServer, take_lock: TakeLock, how: str
) -> None:
    with rj.open(private_server.dsn, limits=LIMITS) as journal:
        locks = [take_lock(journal) for _ in range(3)]
        leases = [declared(journal, lock, f"a-{no}") for no, lock in enumerate(locks)]
        journal.sweep()
        started_at = server_started_at(journal.database)

        if how == "restart":
            private_server.restart()
        elif how == "kill":
            private_server.kill()
            private_server.start()
        else:
            crash_a_backend(private_server, locks[0])
        swept: list[rj.SweepResult] = []
        while not is_up(journal):
            swept += sweep_if_up(journal)
        swept += sweep_beyond_the_grace(journal)

        assert swept == []
        assert (server_started_at(journal.database) == started_at) == (how == "crash of a backend")
        for lock, lease in zip(locks, leases, strict=True):
            until(lock.is_lost, "the end of the session")
            lease.heartbeat(session_lock=None)
        assert_in_step(journal)


def crash_a_backend(server: PrivateServer, lock: SessionLock) -> None:
    """SIGKILL to the backend that holds the lock: the server then ends all of its sessions."""
    assert lock._connection is not None
    pid = lock._connection.info.backend_pid
    (backend,) = [one for one in server.cluster.processes() if one.pid == pid]
    backend.kill()
    until(lambda: "reinitializ" in server.cluster.log.read_text(), "the server to say so")


def sweep_if_up(journal: rj.Journal) -> list[rj.SweepResult]:
    with suppress(ServerUnavailable):
        return journal.sweep()
    return []


def is_up(journal: rj.Journal) -> bool:
    try:
        journal.now()
    except ServerUnavailable:
        return False
    return True
