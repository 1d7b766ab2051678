"""A rebuilt table takes the live one's place under the hands of writers and readers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.log.appender import append
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.check import Check
from recovery_journal.read_models.rebuild.switch import Switch
from recovery_journal.read_models.tables.projection_table import shadow_of, table_of
from tests.domain.histories import granted, history, ready, recovered
from tests.projections.rebuilding import follow, is_right, on_thread, rebuild
from tests.projections.writing import Writer


def test_an_inline_writer_that_waits_for_the_switch_writes_to_the_new_table(
    writer: Writer, server_dsn: str
) -> None:
    writer.write_random(act_count=60)
    other = Database(server_dsn, writer.database.schema)
    events = history(granted(), *recovered(lost_epoch=1, recovery_no=1)[:3], ready())
    held, blocked = threading.Event(), threading.Event()
    # Prepared statements that name the table exist before the switch.
    with other.transaction() as cursor:
        for _ in range(7):
            table_of(DISPATCH_READY).apply(cursor, writer.log()[:30])

    def write_late() -> None:
        with other.transaction() as cursor:
            append(events, cursor)
            held.set()
            assert blocked.wait(30)
            records = Writer(other).event_log.records(cursor, events)
            table_of(DISPATCH_READY).apply(cursor, records)

    thread = threading.Thread(target=write_late)
    prepare_shadow(writer)
    thread.start()
    assert held.wait(30)
    with switching(writer) as pid_of_switch:
        blocked.set()
        wait_until_blocked_by(server_dsn, pid_of_switch)
    thread.join(30)

    rows = [row for row in stored_rows(writer) if row.attempt_id == "a-1"]
    assert [(row.version, row.is_active) for row in rows] == [(5, True)]
    assert not thread.is_alive()
    other.close()


def prepare_shadow(writer: Writer) -> None:
    shadow = shadow_of(DISPATCH_READY)
    with writer.database.transaction() as cursor:
        shadow.create(cursor)
        shadow.apply(cursor, writer.log())


@contextmanager
def switching(writer: Writer) -> Iterator[int]:
    """The switch's transaction, held open between the lock and the rename."""
    shadow, live = shadow_of(DISPATCH_READY), table_of(DISPATCH_READY)
    with writer.database.transaction() as cursor:
        live.lock(cursor)
        yield cursor.connection.info.backend_pid
        live.drop(cursor)
        shadow.take_name(cursor, live.name)


def wait_until_blocked_by(server_dsn: str, pid: int) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        pause = threading.Event()
        for _ in range(600):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                (pid,),
            ).fetchone()
            if row and row[0]:
                return
            pause.wait(0.05)
    raise AssertionError("no session waits for the switch")


def stored_rows(writer: Writer) -> list[DispatchReadyRow]:
    with writer.database.cursor() as cursor:
        return list(table_of(DISPATCH_READY).rows(cursor))


def test_an_event_committed_after_the_switch_below_it_is_not_lost(
    writer: Writer, server_dsn: str
) -> None:
    other = Database(server_dsn, writer.database.schema)
    (granting, *rest) = history(granted(), *recovered(lost_epoch=1, recovery_no=1)[:4])

    with other.transaction() as cursor:
        append([granting, *rest], cursor)
        # These are visible at once, at positions above a gap that is not settled.
        on_thread(writer.write_random)
        on_thread(lambda: rebuild(writer).run())
        positions = [place.position for place in ProjectionTracking(writer.database).all()]

    assert positions == [0] * len(BUILT_IN)
    # Visible events above the gap are in the list all the same: a claim needs it at once.
    assert len(writer.stored(DISPATCH_READY)) == len(writer.expected(DISPATCH_READY)) - 1 > 0
    follow(writer)
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    other.close()


def test_rows_rebuilt_beside_an_open_writer_are_right_before_any_follower_continues(
    writer: Writer, server_dsn: str
) -> None:
    other = Database(server_dsn, writer.database.schema)

    with other.transaction() as cursor:
        append(history(granted(), *recovered(lost_epoch=1, recovery_no=1)[:4]), cursor)
        on_thread(writer.write_random)
        on_thread(lambda: rebuild(writer).run())
        on_thread(lambda: require_right(writer))

    follow(writer)
    assert is_right(writer)
    other.close()


def require_right(writer: Writer) -> None:
    assert [it.differences for it in Check(writer.database).run() if not it.is_right] == []


def test_a_switch_that_finds_no_quiet_moment_retries_and_then_succeeds(
    writer: Writer, server_dsn: str
) -> None:
    writer.write_random(act_count=60)
    other = Database(server_dsn, writer.database.schema)
    tries: list[int] = []

    class Counting(Switch):
        def catch_up(self) -> None:
            tries.append(1)
            if len(tries) == 3:
                holding.set()
            super().catch_up()

    holding = threading.Event()
    is_read = threading.Event()

    def read_for_long() -> None:
        with other.transaction() as cursor:
            cursor.execute("SELECT count(*) FROM projection_dispatch_ready")
            is_read.set()
            assert holding.wait(30)

    thread = threading.Thread(target=read_for_long)
    prepare_shadow(writer)
    thread.start()
    assert is_read.wait(30)

    switched = Counting(writer.database, writer.reader, DISPATCH_READY, upto=0).run()

    thread.join()
    assert len(tries) >= 3
    assert switched.position == writer.log()[-1].position
    assert writer.stored(DISPATCH_READY) == writer.expected(DISPATCH_READY)
    other.close()


def test_a_row_written_inline_before_the_switch_is_in_the_new_table(
    writer: Writer, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The switch meets the writer at its first try, and outwaits it.
    monkeypatch.setattr("recovery_journal.read_models.rebuild.switch.WAIT_S", 30.0)
    monkeypatch.setattr("recovery_journal.read_models.rebuild.switch.HOLD_S", 30.0)
    events = history(granted(), *recovered(lost_epoch=1, recovery_no=1)[:3], ready())
    other = Database(server_dsn, writer.database.schema)
    switch = Switch(writer.database, writer.reader, DISPATCH_READY, upto=0)
    prepare_shadow(writer)
    running = threading.Thread(target=switch.run)

    with other.transaction() as cursor:
        late = Writer(other).event_log
        append(events, cursor)
        table_of(DISPATCH_READY).apply(cursor, late.records(cursor, events))
        running.start()
        wait_until_blocked_by(server_dsn, cursor.connection.info.backend_pid)
    running.join(60)

    assert not running.is_alive()
    assert [row.attempt_id for row in stored_rows(writer)] == ["a-1"]
    other.close()


def test_a_server_that_is_too_slow_for_a_brief_switch_is_given_time(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.read_models.rebuild.switch.BRIEF_FOR_S", 1.0)
    prepare_shadow(writer)
    held: list[float] = []

    def be_slow(cursor: Cursor[DictRow]) -> None:
        began = time.monotonic()
        cursor.execute("SELECT pg_sleep(0.3)")
        held.append(time.monotonic() - began)

    Switch(writer.database, writer.reader, DISPATCH_READY, upto=0, note=be_slow).run()

    assert len(held) == 1
    assert writer.stored(DISPATCH_READY) == writer.expected(DISPATCH_READY)
