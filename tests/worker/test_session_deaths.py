"""Workers die and their sessions end, each without the other: only a death is taken for one."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.domain.events import Dispatched, LeaseExpired
from recovery_journal.journal import Journal
from recovery_journal.worker.outcome import NoticeKind, Outcome
from recovery_journal.worker.session_lock import POOLED, SessionLock
from tests.relays.doorkeeper import Doorkeeper
from tests.relays.pooler import Pooler
from tests.servers import PrivateServer
from tests.standbys import standby_of
from tests.worker.desk import ROOT, Desk, WorkerProgram, desk_at
from tests.worker.functions import is_gone, until

GRACE_S = 0.3
LIMITS = rj.Limits(grace_s=0.2, session_grace_s=GRACE_S)
LONG_TTL_S = 30.0  # no test waits for this one
FLEET_COUNT = 40

DECLARED = "SELECT session_lock FROM leases WHERE attempt_id = 'a-1'"

HAS_RENEWED = """
SELECT FROM leases WHERE attempt_id = 'a-1' AND renewed_at > granted_at + interval '0.4 s'
"""

SESSION = """
SELECT pid
FROM pg_locks
WHERE locktype = 'advisory'
    AND classid = 'session_locks'::regclass
    AND objid::bigint = %(number)s
"""

CUT = "SELECT pg_terminate_backend(%(pid)s)"

HELD_LOCKS = """
SELECT objid::bigint AS number, pid
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass
"""

CUT_ALL_OTHERS = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE datname = current_database()
    AND application_name = 'recovery_journal'
    AND pid <> pg_backend_pid()
"""


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[Journal]:
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal


@pytest.fixture
def private(private_server: PrivateServer) -> Iterator[Desk]:
    """A desk at a server of its own."""
    with (
        rj.open(private_server.dsn, limits=LIMITS) as journal,
        desk_at(journal, private_server.dsn) as desk,
    ):
        yield desk


def ask(journal: Journal, query: str, **values: Any) -> list[Any]:
    with journal.database.cursor() as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def declared(desk: Desk) -> int | None:
    """The session lock that the attempt's holder has declared last."""
    (row,) = ask(desk.journal, DECLARED)
    number: int | None = row["session_lock"]
    return number


def at_work(desk: Desk, function: str = "hold", **settings: Any) -> tuple[WorkerProgram, int]:
    """A worker with a long TTL whose function runs and whose lock a sweep has seen."""
    desk.make_ready("a-1", function)
    worker = desk.start(**{"ttl_s": LONG_TTL_S, **settings})
    child_id = desk.child_id()
    desk.journal.sweep()
    return worker, child_id


def sweep_beyond_the_grace(journal: Journal) -> list[rj.SweepResult]:
    """Sweep for several times the grace; an outage is waited for."""
    swept: list[rj.SweepResult] = []
    deadline = None
    while deadline is None or journal.now() < deadline:
        with suppress(ServerUnavailable):
            swept += journal.sweep()
            deadline = deadline or journal.now() + timedelta(seconds=4 * GRACE_S)
    return swept


def assert_continues(desk: Desk, worker: WorkerProgram) -> None:
    """The worker completes under the very lease that it had."""
    desk.let_go()
    assert worker.until_ended() == [Outcome.COMPLETED]
    assert len(desk.events("a-1", Dispatched)) == 1
    assert len(desk.events("a-1", LeaseExpired)) == 1  # the one that made it ready


def test_a_killed_worker_is_missed_long_before_its_ttl(desk: Desk) -> None:
    worker, child_id = at_work(desk)
    number = declared(desk)

    worker.signal(signal.SIGKILL)
    desk.sweep_until_lost("a-1")

    lost = desk.events("a-1", LeaseExpired)[-1]
    assert lost.loss is rj.LossReason.SESSION_LOST
    assert lost.session is not None
    assert (lost.session.session_lock, lost.session.grace_s) == (number, GRACE_S)
    assert lost.lease.seen_at >= lost.session.gone_at + timedelta(seconds=GRACE_S)
    assert lost.lease.seen_at < lost.lease.expires_at
    until(lambda: is_gone(child_id), "the child to die with it")


def test_a_worker_killed_over_a_fresh_attempt_is_missed_as_well(desk: Desk) -> None:
    """`run_lease` runs what was acquired, not claimed."""
    script = (
        "import sys; import recovery_journal as rj; from tests.worker.functions import hold;"
        "journal = rj.open(sys.argv[1], schema=sys.argv[2]);"
        "lease = journal.acquire(attempt_id='a-1', run_id='r', worker_id='w', input=sys.argv[3]);"
        "rj.Worker(journal, 'w', hold).run_lease(lease)"
    )
    command = [sys.executable, "-c", script, desk.dsn, desk.journal.database.schema]
    process = subprocess.Popen([*command, str(desk.folder)], cwd=ROOT)
    try:
        child_id = desk.child_id()
        desk.journal.sweep()

        process.kill()
        desk.sweep_until_lost("a-1")
    finally:
        process.kill()
        process.wait()

    (lost,) = desk.events("a-1", LeaseExpired)
    assert lost.loss is rj.LossReason.SESSION_LOST
    until(lambda: is_gone(child_id), "the child to die")


def test_a_fork_of_the_function_that_outlives_the_worker_does_not_hide_its_death(
    desk: Desk,
) -> None:
    worker, child_id = at_work(desk, "hold_with_a_daemon")
    forked_id = int((desk.folder / "forked").read_text())

    worker.signal(signal.SIGSTOP)
    psutil.Process(psutil.Process(child_id).ppid()).kill()  # its guardian would end the fork
    worker.signal(signal.SIGKILL)
    desk.sweep_until_lost("a-1")

    assert not is_gone(forked_id)
    assert is_gone(child_id)
    assert desk.events("a-1", LeaseExpired)[-1].loss is rj.LossReason.SESSION_LOST


def test_a_worker_whose_lock_is_cut_takes_another_and_keeps_its_lease(desk: Desk) -> None:
    worker, _ = at_work(desk)

    for _ in range(3):
        before = declared(desk)
        (session,) = ask(desk.journal, SESSION, number=before)
        ask(desk.journal, CUT, pid=session["pid"])
        swept = sweep_beyond_the_grace(desk.journal)

        assert swept == []
        assert declared(desk) not in (None, before)

    assert_continues(desk, worker)
    problems = [it.text for it in worker.notices if it.kind is NoticeKind.PROBLEM]
    assert sum(text.startswith("lost the session lock: ") for text in problems) == 3


def test_a_worker_whose_connections_are_all_cut_keeps_its_lease(private: Desk) -> None:
    worker, _ = at_work(private)
    before = declared(private)

    ask(private.journal, CUT_ALL_OTHERS)
    swept = sweep_beyond_the_grace(private.journal)

    assert swept == []
    assert declared(private) not in (None, before)
    assert_continues(private, worker)


def test_an_idle_worker_whose_lock_is_cut_has_another_when_it_works_again(desk: Desk) -> None:
    worker = desk.start(ttl_s=LONG_TTL_S)
    desk.make_ready("a-0", "count")
    worker.until_ended(1)
    (before,) = ask(desk.journal, HELD_LOCKS)
    ask(desk.journal, CUT, pid=before["pid"])

    desk.make_ready("a-1", "hold")
    desk.child_id()
    until(lambda: declared(desk) not in (None, before["number"]), "the worker's next lock")
    number = declared(desk)
    desk.journal.sweep()
    worker.signal(signal.SIGKILL)
    desk.sweep_until_lost("a-1")

    lost = desk.events("a-1", LeaseExpired)[-1]
    assert lost.session is not None
    assert lost.session.session_lock == number


def test_a_worker_that_gets_no_lock_any_more_is_left_to_its_ttl(private: Desk) -> None:
    worker, _ = at_work(private)
    before = declared(private)
    (session,) = ask(private.journal, SESSION, number=before)
    until(lambda: ask(private.journal, HAS_RENEWED), "a heartbeat beside the function")
    with psycopg.connect(private.dsn, dbname="template1", autocommit=True) as elsewhere:
        elsewhere.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        ask(private.journal, CUT, pid=session["pid"])
        until(lambda: declared(private) is None, "the worker to say that it has no lock")

        assert sweep_beyond_the_grace(private.journal) == []

        elsewhere.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
    until(lambda: declared(private) not in (None, before), "the worker's next lock")
    private.journal.sweep()
    assert_continues(private, worker)


def test_a_suspended_worker_is_left_to_its_ttl(desk: Desk) -> None:
    worker, child_id = at_work(desk)

    os.kill(child_id, signal.SIGSTOP)
    worker.signal(signal.SIGSTOP)
    swept = sweep_beyond_the_grace(desk.journal)
    worker.signal(signal.SIGCONT)
    os.kill(child_id, signal.SIGCONT)

    assert swept == []
    assert_continues(desk, worker)


def test_a_worker_that_is_asked_to_end_leaves_nothing_to_be_missed(desk: Desk) -> None:
    worker, _ = at_work(desk)

    worker.signal(signal.SIGTERM)
    until(lambda: worker.is_draining, "the drain")
    desk.let_go()

    assert worker.exit_code() == 0
    assert sweep_beyond_the_grace(desk.journal) == []
    assert_continues(desk, worker)


def restart(server: PrivateServer, _desk: Desk) -> None:
    server.restart()


def lose_power(server: PrivateServer, _desk: Desk) -> None:
    server.kill()
    server.start()


def crash_the_locks_backend(server: PrivateServer, desk: Desk) -> None:
    """SIGKILL to one backend: the server ends all of its sessions and recovers."""
    (session,) = ask(desk.journal, SESSION, number=declared(desk))
    (backend,) = [one for one in server.cluster.processes() if one.pid == session["pid"]]
    backend.kill()
    until(lambda: "reinitializing" in server.cluster.log.read_text(), "the server to say so")


@pytest.mark.parametrize("happen", [restart, lose_power, crash_the_locks_backend])
def test_what_ends_every_session_of_the_server_is_nobodys_death(
    private: Desk, private_server: PrivateServer, happen: Callable[[PrivateServer, Desk], None]
) -> None:
    worker, child_id = at_work(private)
    before = declared(private)

    happen(private_server, private)
    swept = sweep_beyond_the_grace_after_an_outage(private)
    until(lambda: declared(private) not in (None, before), "the worker's next lock")
    swept += sweep_beyond_the_grace(private.journal)

    assert swept == []
    assert not is_gone(child_id)
    assert_continues(private, worker)


def sweep_beyond_the_grace_after_an_outage(desk: Desk) -> list[rj.SweepResult]:
    def is_up() -> bool:
        try:
            desk.journal.now()
        except ServerUnavailable:
            return False
        return True

    until(is_up, "the server")
    return sweep_beyond_the_grace(desk.journal)


def test_a_failover_is_nobodys_death(private_server: PrivateServer) -> None:
    """Worker and sweeper know both servers, and go to whichever is the primary."""
    with standby_of(private_server) as standby:
        hosts = ",".join(
            str(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"])
            for server in (private_server, standby)
        )
        dsn = make_conninfo(
            user="postgres", dbname="postgres", host=hosts, target_session_attrs="read-write"
        )
        with rj.open(dsn, limits=LIMITS) as journal, desk_at(journal, dsn) as desk:
            worker, child_id = at_work(desk)
            before = declared(desk)
            (row,) = ask(journal, "SELECT pg_current_wal_lsn()::text AS lsn")
            until(lambda: has_replayed(standby, row["lsn"]), "the standby's copy")

            private_server.kill()
            with psycopg.connect(standby.dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_promote()")
            with rj.open(standby.dsn, must_be_accepted=False) as promoted:
                promoted.after_restore(by="hook", reason="all came over", is_nothing_lost=True)
            swept = sweep_beyond_the_grace_after_an_outage(desk)
            until(lambda: declared(desk) not in (None, before), "the worker's next lock")
            swept += sweep_beyond_the_grace(journal)

            assert swept == []
            assert not is_gone(child_id)
            assert_continues(desk, worker)


def has_replayed(standby: PrivateServer, lsn: str) -> bool:
    with psycopg.connect(standby.dsn) as connection:
        row = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)).fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize(
    ("backend_count", "greets_as_backend"), [(6, True), (6, False), (1, False)]
)
def test_behind_a_transaction_pooler_the_ttl_decides_and_the_worker_says_so(
    private: Desk, *, backend_count: int, greets_as_backend: bool
) -> None:
    with Pooler.before(
        private.dsn,
        search_path=private.journal.database.schema,
        backend_count=backend_count,
        greets_as_backend=greets_as_backend,
    ) as pooler:
        worker, _ = at_work(private, ttl_s=2.0, dsn=pooler.dsn)
        said = [notice.text for notice in worker.notices if notice.kind is NoticeKind.PROBLEM]

        assert said == [POOLED]
        assert declared(private) is None
        assert sweep_beyond_the_grace(private.journal) == []

        worker.signal(signal.SIGKILL)
        private.sweep_until_lost("a-1")
        lost = private.events("a-1", LeaseExpired)[-1]
        assert (lost.loss, lost.session) == (rj.LossReason.TTL, None)


def test_a_sweeper_behind_a_transaction_pooler_believes_no_end_and_says_so(
    private: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    schema = private.journal.database.schema
    with (
        Pooler.before(private.dsn, search_path=schema) as pooler,
        rj.open(pooler.dsn, limits=LIMITS) as pooled,
        caplog.at_level(logging.WARNING, "recovery_journal"),
    ):
        pooled.sweep()
        worker, _ = at_work(private)
        pooled.sweep()

        worker.signal(signal.SIGKILL)
        assert sweep_beyond_the_grace(pooled) == []

        reported = [record.message for record in caplog.records]
        assert len(reported) == 1
        assert reported[0].startswith("cannot watch session locks through 127.0.0.1:")
        private.sweep_until_lost("a-1")  # by a sweeper that is not


def test_many_workers_that_die_at_once_are_all_missed(journal: Journal, server_dsn: str) -> None:
    schema = journal.database.schema
    with holders(server_dsn, schema):
        journal.sweep()
        alive = SessionLock(journal.database)
        alive.take()
        lease = journal.acquire(attempt_id="alive", run_id="r-alive", worker_id="alive")
        lease.heartbeat(session_lock=alive.number)
        journal.sweep()

    swept: list[rj.SweepResult] = []
    while len(swept) < FLEET_COUNT:
        swept += journal.sweep()

    assert {one.attempt_id for one in swept} == {f"a-{number}" for number in range(FLEET_COUNT)}
    for number in range(FLEET_COUNT):
        lost = journal.recovery(f"a-{number}").lost
        assert lost is not None
        assert (lost.loss, lost.is_fleet_wide) == (rj.LossReason.SESSION_LOST, True)
    lease.complete()
    alive.close()


@contextmanager
def holders(dsn: str, schema: str) -> Iterator[None]:
    """A fleet, all of which is killed in the end."""
    command = [sys.executable, "-m", "tests.worker.holders", dsn, schema, str(FLEET_COUNT)]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    assert program.stdout is not None
    try:
        for _ in range(FLEET_COUNT):
            assert program.stdout.readline() == b".\n"
        yield
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        program.stdout.close()


def test_a_worker_that_cannot_connect_any_more_keeps_its_heartbeats(private: Desk) -> None:
    """A proxy that swallows new connections silently must not keep it from renewing a short TTL."""
    with Doorkeeper.before(private.dsn) as doorkeeper:
        worker, child_id = at_work(private, ttl_s=1.0, dsn=doorkeeper.dsn)
        until(lambda: ask(private.journal, HAS_RENEWED), "a heartbeat beside the function")
        (session,) = ask(private.journal, SESSION, number=declared(private))

        doorkeeper.swallow()
        ask(private.journal, CUT, pid=session["pid"])
        until(lambda: declared(private) is None, "the worker to say that it has no lock")
        swept = [sweep_beyond_the_grace(private.journal) for _ in range(3)]

        assert swept == [[], [], []]
        assert not is_gone(child_id)
        doorkeeper.let_in()
        until(lambda: declared(private) is not None, "the worker's next lock")
        assert_continues(private, worker)
