"""Connections: one per thread, opened again when they broke, never shared with a child."""

import gc
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from recovery_journal.domain.errors import (
    InvalidInput,
    RecoveryJournalError,
    ServerTooOld,
    ServerUnavailable,
    StoreBusy,
)
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from tests.servers import PrivateServer, server_started_at

SESSIONS = "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = %(name)s"
WHO = "SELECT pg_backend_pid() AS pid"


def pid_of(database: Database) -> int:
    with database.cursor() as cursor:
        row = cursor.execute(WHO).fetchone()
    assert row is not None
    return int(row["pid"])


def end_session(database: Database, pid: int) -> None:
    """Return once the session is gone."""
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 20000)", [pid])


def wait_for_sessions(database: Database, name: str, count: int) -> None:
    """Return once so many sessions bear the name; pytest's own limit ends a wait in vain."""
    found = -1
    while found != count:
        with database.cursor() as cursor:
            row = cursor.execute(SESSIONS, {"name": name}).fetchone()
        assert row is not None
        found = row["count"]


def test_a_thread_keeps_its_connection_and_shares_it_with_none(database: Database) -> None:
    pids: list[int] = []

    thread = threading.Thread(target=lambda: pids.extend([pid_of(database), pid_of(database)]))
    thread.start()
    thread.join()

    assert pids[0] == pids[1]
    assert pid_of(database) == pid_of(database) != pids[0]


def test_a_connection_closes_with_its_thread(
    database: Database, server_dsn: str, schema: str
) -> None:
    named = Database(server_dsn, schema, application_name=schema)

    thread = threading.Thread(target=pid_of, args=(named,))
    thread.start()
    thread.join()

    wait_for_sessions(database, schema, 0)


def test_closing_closes_the_connections_of_all_threads(
    database: Database, server_dsn: str, schema: str
) -> None:
    named = Database(server_dsn, schema, application_name=schema)
    opened, done = threading.Event(), threading.Event()

    def use() -> None:
        pid_of(named)
        opened.set()
        done.wait(timeout=20)

    thread = threading.Thread(target=use)
    thread.start()
    opened.wait(timeout=20)
    named.close()

    wait_for_sessions(database, schema, 0)
    done.set()
    thread.join()
    with pytest.raises(InvalidInput, match="closed"):
        named.connection()


def test_a_broken_connection_is_opened_again_under_a_larger_number(
    database: Database, other: Database
) -> None:
    session_no, pid = database.session_no(), pid_of(database)
    end_session(other, pid)

    with pytest.raises(ServerUnavailable):
        pid_of(database)

    assert pid_of(database) != pid
    assert database.session_no() > session_no


def test_a_forked_child_has_a_connection_of_its_own(database: Database) -> None:
    pid = pid_of(database)
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:  # no test runs here: whatever happens, this process ends below
        answer = b"?"
        try:
            answer = b"own" if pid_of(database) != pid else b"shared"
            database.close()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 10) == b"own"
    assert pid_of(database) == pid
    os.close(reading)
    os.close(writing)


def test_nothing_carries_on_outside_of_a_transaction_that_was_lost(
    database: Database, other: Database
) -> None:
    pid = pid_of(database)

    def lose_it() -> None:
        with database.transaction() as cursor:
            end_session(other, pid)
            with pytest.raises(psycopg.OperationalError):
                cursor.execute(WHO)
            database.connection()

    with pytest.raises(ServerUnavailable, match="transaction"):
        lose_it()

    assert pid_of(database) != pid


def test_a_transaction_inside_a_transaction_is_refused(database: Database) -> None:
    with (
        database.transaction(),
        pytest.raises(InvalidInput, match="pass the cursor"),
        database.transaction(),
    ):
        pass


def test_a_transaction_is_rolled_back_by_an_error(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as cursor:
            cursor.execute("CREATE TABLE mine (id int)")
            cursor.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        fail()

    with database.cursor() as cursor:
        found = cursor.execute("SELECT to_regclass('mine') AS mine").fetchone()
    assert found == {"mine": None}


def test_a_session_speaks_utc_and_read_committed(database: Database) -> None:
    with database.cursor() as cursor:
        zone = cursor.execute("SHOW TimeZone").fetchone()
        isolation = cursor.execute("SHOW transaction_isolation").fetchone()

    assert zone == {"TimeZone": "UTC"}
    assert isolation == {"transaction_isolation": "read committed"}


def test_a_session_that_idles_in_a_transaction_is_cut_off(server_dsn: str, schema: str) -> None:
    database = Database(server_dsn, schema, idle_in_transaction_s=0.05)
    watch = Database(server_dsn, schema)
    pid = pid_of(database)

    def idle() -> None:
        with database.transaction() as cursor:
            while _is_there(watch, pid):
                pass
            cursor.execute(WHO)

    with pytest.raises(ServerUnavailable):
        idle()

    database.close()
    watch.close()


def _is_there(database: Database, pid: int) -> bool:
    with database.cursor() as cursor:
        there = cursor.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid])
        return there.fetchone() is not None


@pytest.mark.parametrize("limits", [{"statement_s": 0.05}, {"lock_s": 0.05}])
def test_a_limit_that_is_reached_means_busy(
    server_dsn: str, schema: str, other: Database, limits: dict[str, Any]
) -> None:
    database = Database(server_dsn, schema, **limits)

    with other.transaction() as theirs:
        theirs.execute("LOCK TABLE journal_events")
        with pytest.raises(StoreBusy), database.cursor() as cursor:
            cursor.execute("SELECT FROM journal_events")

    database.close()


@contextmanager
def refused(dsn: str, error: type[RecoveryJournalError]) -> Iterator[list[str]]:
    messages: list[str] = []
    database = Database(dsn, "any")
    with pytest.raises(error) as found:
        database.connection()
    messages.append(str(found.value))
    yield messages


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with refused("postgresql://me:s3cret@127.0.0.1:1/mine", ServerUnavailable) as messages:
        assert "127.0.0.1:1/mine" in messages[0]
        assert "s3cret" not in messages[0]


@pytest.mark.parametrize("dsn", ["s3cret", "host=x password", "postgresql://me:s3cret@[::1/x"])
def test_a_dsn_that_is_none_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(InvalidInput, match="DSN") as found:
        Database(dsn, "any")

    assert "s3cret" not in str(found.value)


class OldServer(Database):
    def server_version(self, connection: Connection[DictRow]) -> int:
        assert connection.info.server_version
        return 130011


def test_a_server_below_14_is_too_old(server_dsn: str) -> None:
    database = OldServer(server_dsn, "any")

    with pytest.raises(ServerTooOld, match=r"13\.11.* 14"):
        database.connection()


@pytest.mark.parametrize("name", ["", "x" * 64, "ü" * 32, "a\0b", "pg_mine", "$user"])
def test_a_schema_name_that_postgres_would_change_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="schema name"):
        Database("", name)


@pytest.mark.parametrize(
    "name", ["a b", 'say "hi"', "試行", "ü" * 31, "Mixed", "a,b", "$mine", "%s"]
)
def test_a_schema_name_may_be_anything_else(server_dsn: str, name: str) -> None:
    database = Database(server_dsn, name)
    try:
        assert schemas.create(database)
        with database.cursor() as cursor:
            found = cursor.execute("SELECT current_schema() AS name").fetchone()
        assert found == {"name": name}
    finally:
        with database.cursor() as cursor:
            cursor.execute(
                psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(name))
            )
        database.close()


def test_a_restart_of_the_server_shows(private_server: PrivateServer) -> None:
    database = Database(private_server.dsn, "any")
    started_at, session_no = server_started_at(database), database.session_no()

    private_server.restart()
    with pytest.raises(ServerUnavailable):
        server_started_at(database)

    assert server_started_at(database) > started_at
    assert database.session_no() > session_no
    database.close()


def test_a_server_that_does_not_answer_in_time_is_left_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        database = Database(f"postgresql://me@127.0.0.1:{port}/postgres?sslmode=disable", "any")

        gc.disable()  # which would close it too, at some time
        try:
            with pytest.raises(ServerUnavailable):
                database.open_connection(connect_timeout=2)
            end, _ = silent.accept()
            with end:
                end.settimeout(10)
                said = b"".join(iter(lambda: end.recv(1024), b""))
        finally:
            gc.enable()

    assert said  # and then its end
