"""The session lock of a worker: held by a connection of its own, lost with it, never inherited."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

import recovery_journal as rj
from recovery_journal.journal import Journal
from recovery_journal.process.back_off import BackOff
from recovery_journal.worker.session_lock import SessionLock
from tests.worker.functions import until

CUT = """
SELECT pg_terminate_backend(pid)
FROM pg_locks
WHERE locktype = 'advisory'
    AND classid = 'session_locks'::regclass
    AND (objid::bigint = %(number)s OR %(number)s IS NULL)
"""

HELD = """
SELECT objid::bigint AS number
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass AND granted
ORDER BY number
"""


def locks_of(journal: Journal) -> list[int]:
    with journal.database.cursor() as cursor:
        return [row["number"] for row in cursor.execute(HELD).fetchall()]


def cut(journal: Journal, number: int | None = None) -> None:
    with journal.database.cursor() as cursor:
        cursor.execute(CUT, {"number": number})


@pytest.fixture
def lock(journal: Journal) -> Iterator[SessionLock]:
    lock = SessionLock(journal.database)
    yield lock
    lock.close()


def test_it_is_held_until_it_is_closed(journal: Journal, lock: SessionLock) -> None:
    assert lock.take()
    held = locks_of(journal)
    lock.close()

    assert held == [held[0]]
    until(lambda: locks_of(journal) == [], "the server to drop it")
    assert (lock.number, lock.file) == (None, None)


def test_taking_it_twice_has_no_effect(journal: Journal, lock: SessionLock) -> None:
    lock.take()

    assert not lock.take()

    assert locks_of(journal) == [lock.number]


def test_a_cut_connection_is_noticed_and_the_next_lock_has_another_number(
    journal: Journal, lock: SessionLock
) -> None:
    lock.take()
    first = lock.number
    is_lost_before = lock.is_lost()

    cut(journal)
    until(lock.is_lost, "the end of the connection")
    held_meanwhile = lock.number
    assert lock.take()

    assert (is_lost_before, held_meanwhile) == (False, None)
    assert lock.number not in (None, first)
    assert locks_of(journal) == [lock.number]
    (problem,) = lock.problems()
    assert problem.startswith("lost the session lock: ")


def test_two_schemas_do_not_see_each_others(
    journal: Journal, lock: SessionLock, server_dsn: str, schema: str
) -> None:
    lock.take()
    with (
        rj.open(server_dsn, schema=f"{schema}_2") as other,
        closing(SessionLock(other.database)) as stranger,
    ):
        assert stranger.take()

        assert locks_of(journal) == [lock.number]
        assert locks_of(other) == [stranger.number]
        with other.database.cursor() as cursor:
            cursor.execute(f'DROP SCHEMA "{schema}_2" CASCADE'.encode())


def test_a_fork_that_outlives_its_parent_keeps_no_lock(journal: Journal, lock: SessionLock) -> None:
    """As if the parent had died: only the parent's own copy of the socket is closed."""
    lock.take()
    wait, end = os.pipe()
    child_id = os.fork()
    if child_id == 0:
        os.close(end)
        os.read(wait, 1)
        os._exit(0)
    try:
        file = lock.file
        assert file is not None
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, file)
        os.close(nothing)

        until(lambda: locks_of(journal) == [], "the server to drop it while the fork lives")
    finally:
        os.close(end)
        os.waitpid(child_id, 0)
        os.close(wait)
        until(lock.is_lost, "the end of the connection")


def test_a_child_keeps_what_has_the_number_of_a_socket_that_is_gone(lock: SessionLock) -> None:
    lock.take()
    number = lock.file
    assert number is not None
    # As libpq closes it, unnoticed as yet.
    assert lock._connection is not None
    lock._connection.close()
    reading, writing = os.pipe()
    if reading != number:
        os.dup2(reading, number)
    os.write(writing, b"x")

    child = os.fork()
    if child == 0:
        os._exit(0 if os.read(number, 1) == b"x" else 1)

    assert os.waitpid(child, 0)[1] == 0
    for end in {reading, writing, number}:
        os.close(end)


def test_a_lock_leaves_no_hook_behind(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hook: hooks.append(hook))

    SessionLock(journal.database).close()

    assert hooks == []


def test_a_worker_without_a_server_reports_it_once_and_retries(
    journal: Journal, lock: SessionLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.worker.session_lock.SHORTEST_PAUSE_S", 0.0)
    target = dict(journal.database._options)
    lock._back_off = BackOff(0.0, 0.0)
    journal.database._options |= {"host": "/nowhere"}
    assert not lock.take()
    assert not lock.take()
    journal.database._options = target

    assert lock.take()
    (problem,) = lock.problems()
    assert problem.startswith("cannot take a session lock now: ServerUnavailable: ")
