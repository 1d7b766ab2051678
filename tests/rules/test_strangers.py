"""A role that may merely connect holds advisory locks, and neither kills nor stops anybody."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

import recovery_journal as rj
from recovery_journal.domain.errors import StoreBusy
from recovery_journal.domain.events import LeaseExpired
from recovery_journal.read_models.rebuild.rebuild_lock import RebuildLock, is_under_way
from recovery_journal.store.ready_notice import NOTIFY
from recovery_journal.worker.session_lock import SessionLock
from tests.rules.scenes import OpenJournal, events_of, held, rows, sweep_until, types_of, until
from tests.rules.test_sessions import LIMITS, declared, end, sweep_beyond_the_grace

FAMILY = "SELECT 'session_locks'::regclass::oid::bigint AS number"
SLEEPERS = "SELECT 'epochs'::regclass::oid::bigint AS number"
IS_QUEUED = """
SELECT FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass AND NOT granted
"""


@pytest.fixture
def journal(open_journal: OpenJournal) -> rj.Journal:
    return open_journal(limits=LIMITS)


@pytest.fixture
def stranger_dsn(server_dsn: str) -> Iterator[str]:
    """A role without any right but to connect."""
    name = f"stranger_{uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, autocommit=True) as owner:
        owner.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        try:
            yield make_conninfo(server_dsn, user=name)
        finally:
            owner.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s",
                (name,),
            )
            owner.execute(SQL("DROP ROLE {}").format(Identifier(name)))


@pytest.fixture
def stranger(stranger_dsn: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(stranger_dsn, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def lock(journal: rj.Journal) -> Iterator[SessionLock]:
    lock = SessionLock(journal.database)
    assert lock.take()
    yield lock
    lock.close()


def key(journal: rj.Journal, family: str, number: int) -> int:
    return int(rows(journal, family)[0]["number"]) << 32 | number


def ask_for(stranger: psycopg.Connection, number: int, *, function: str) -> None:
    """Send the question and do not wait for the answer."""
    stranger.pgconn.send_query_params(f"SELECT {function}({number})".encode(), None)


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_advisory_lock_shared"])
@pytest.mark.parametrize("has_rights", [False, True])
def test_a_queued_lock_does_not_keep_a_dead_worker_alive(
    journal: rj.Journal,
    lock: SessionLock,
    stranger_dsn: str,
    server_dsn: str,
    function: str,
    *,
    has_rights: bool,
) -> None:
    assert lock.number is not None
    number = lock.number
    declared(journal, lock)
    dsn = server_dsn if has_rights else stranger_dsn
    with closing(psycopg.connect(dsn, autocommit=True)) as queue:
        ask_for(queue, key(journal, FAMILY, number), function=function)
        until(lambda: rows(journal, IS_QUEUED), "the stranger to wait")
        assert sweep_beyond_the_grace(journal) == []

        lock.close()
        until(lambda: not rows(journal, IS_QUEUED), "the stranger to be granted the lock")

        sweep_until(journal)
        (lost,) = events_of(journal, LeaseExpired)
        assert lost.loss is rj.LossReason.SESSION_LOST


@pytest.mark.parametrize("act", ["queue", "queue shared", "try", "hold before", "neighbours"])
def test_no_lock_of_a_stranger_makes_a_living_worker_look_dead(
    journal: rj.Journal, lock: SessionLock, stranger: psycopg.Connection, act: str
) -> None:
    assert lock.number is not None
    mine = key(journal, FAMILY, lock.number)
    others = [key(journal, FAMILY, lock.number + step) for step in (1, 2, 3)]
    if act == "hold before":
        stranger.execute("SELECT pg_advisory_lock_shared(n) FROM unnest(%s::bigint[]) n", (others,))
    lease = declared(journal, lock)
    journal.sweep()

    if act.startswith("queue"):
        shared = "_shared" if act.endswith("shared") else ""
        ask_for(stranger, mine, function=f"pg_advisory_lock{shared}")
        until(lambda: rows(journal, IS_QUEUED), "the stranger to wait")
    elif act == "try":
        for _ in range(20):
            stranger.execute("SELECT pg_try_advisory_lock(%s), pg_advisory_unlock_all()", (mine,))
            journal.sweep()
    for number in others:
        if not act.startswith("queue"):
            stranger.execute("SELECT pg_try_advisory_lock(%s)", (number,))
            journal.sweep()
            stranger.execute("SELECT pg_advisory_unlock_all()")

    assert sweep_beyond_the_grace(journal) == []
    lease.complete()
    assert types_of(journal)[-1] == "LeaseEnded"


def test_numbers_that_come_next_cannot_be_foreseen(
    journal: rj.Journal, lock: SessionLock, stranger: psycopg.Connection
) -> None:
    assert lock.number is not None
    first = key(journal, FAMILY, lock.number)
    stranger.execute(
        "SELECT pg_try_advisory_lock(n) FROM generate_series(%s::bigint, %s) n",
        (first + 1, first + 2000),
    )
    stranger.execute(
        "SELECT pg_try_advisory_lock(n) FROM generate_series(%s::bigint, %s) n",
        (key(journal, FAMILY, 1), key(journal, FAMILY, 2000)),
    )
    with ExitStack() as taken:
        for _ in range(5):
            other = SessionLock(journal.database)
            taken.callback(other.close)

            assert other.take()
            assert other.problems() == []


def test_where_every_number_drawn_is_held_it_says_so_and_tries_again(
    journal: rj.Journal, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.worker.session_lock.LARGEST_NUMBER", 3)
    monkeypatch.setattr("recovery_journal.worker.session_lock.SHORTEST_PAUSE_S", 0.0)
    for number in (1, 2, 3):
        stranger.execute("SELECT pg_advisory_lock(%s)", (key(journal, FAMILY, number),))
    lock = SessionLock(journal.database)

    assert not lock.take()
    (problem,) = lock.problems()
    stranger.execute("SELECT pg_advisory_unlock_all()")
    until(lock.take, "the next try")

    assert "held by other sessions" in problem
    assert "pooler" not in problem
    lock.close()


def test_locks_that_a_stranger_lets_go_are_no_loss_of_the_fleet(
    journal: rj.Journal, lock: SessionLock, stranger: psycopg.Connection
) -> None:
    declared(journal, lock)
    numbers = [key(journal, FAMILY, number) for number in range(1, 40)]
    stranger.execute("SELECT pg_advisory_lock(n) FROM unnest(%s::bigint[]) n", (numbers,))
    journal.sweep()

    stranger.execute("SELECT pg_advisory_unlock_all()")
    end(journal, lock)

    sweep_until(journal)
    (lost,) = events_of(journal, LeaseExpired)
    assert not lost.is_fleet_wide


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_the_sleepers_lock_is_not_waited_for(
    journal: rj.Journal, lock: SessionLock, stranger: psycopg.Connection, function: str
) -> None:
    stranger.execute(f"SELECT {function}(%s)".encode(), (key(journal, SLEEPERS, 0),))
    with journal.database.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1h'")

    is_lost = lock.sleep(is_asleep=True)

    assert not is_lost
    assert lock.is_asleep == (function == "pg_advisory_lock_shared")
    assert lock.number is not None
    assert lock.problems() == []
    stranger.execute("SELECT pg_advisory_unlock_all()")
    lock.sleep(is_asleep=True)
    assert lock.is_asleep


def test_a_stranger_counts_as_one_sleeper_at_most(
    journal: rj.Journal, lock: SessionLock, stranger: psycopg.Connection
) -> None:
    for number in range(100):
        stranger.execute("SELECT pg_advisory_lock_shared(%s)", (key(journal, SLEEPERS, number),))
    lock.sleep(is_asleep=True)
    payload = NOTIFY.replace("SELECT pg_notify(", "SELECT concat_ws(':',")

    (row,) = rows(journal, payload, {"ready_count": 1})

    assert row["concat_ws"].endswith(":1 2")


def test_no_role_that_may_merely_connect_keeps_a_journal_from_being_made(
    server_dsn: str, stranger: psycopg.Connection
) -> None:
    schema = f"made_{uuid4().hex[:12]}"
    stranger.execute(
        "SELECT pg_advisory_lock(hashtextextended('recovery_journal ' || %s, 0))", (schema,)
    )

    with rj.open(server_dsn, schema=schema) as journal:
        assert journal.sweep() == []
        with journal.database.cursor() as cursor:
            cursor.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())


def test_a_rebuild_names_the_stranger_who_has_its_lock(
    journal: rj.Journal, stranger: psycopg.Connection
) -> None:
    held(journal).complete()
    schema = journal.database.schema
    stranger.execute(
        "SELECT pg_advisory_lock(hashtextextended('recovery_journal rebuild ' || %s, 0))",
        (schema,),
    )

    with pytest.raises(StoreBusy, match=f"process {stranger.info.backend_pid} of role 'stranger"):
        journal.rebuild()

    with journal.database.cursor() as cursor:
        assert not is_under_way(cursor, schema)
    stranger.execute("SELECT pg_advisory_unlock_all()")
    journal.rebuild()
    own = RebuildLock(journal.database)
    assert own.acquire()
    with journal.database.cursor() as cursor:
        assert is_under_way(cursor, schema)
    own.release()
