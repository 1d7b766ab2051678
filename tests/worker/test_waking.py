"""Workers that wait are called when attempts are ready; a lost call costs nothing but time."""

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from recovery_journal.store.lease import Lease
from recovery_journal.store.ready_notice import ReadyNotice, listen, notify_ready
from recovery_journal.worker.outcome import Outcome
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.wake_event import WakeEvent
from tests.worker.desk import Desk, WorkerProgram
from tests.worker.functions import has_notice, until

FOR_EVER_S = 3600.0

SESSIONS = """
SELECT count(*) AS count
FROM pg_stat_activity
WHERE (query LIKE 'LISTEN %%' OR query LIKE '%%lock_shared%%')  -- asleep since then
    AND application_name = 'recovery_journal'
    AND state = 'idle'
    AND pid IN (
        SELECT pid
        FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass
    )
"""


def asleep(desk: Desk) -> WorkerProgram:
    """A worker that has found nothing to claim, and does not poll again by itself."""
    worker = desk.start(shortest_pause_s=FOR_EVER_S, longest_pause_s=FOR_EVER_S, ttl_s=30.0)
    until(lambda: listening_count(desk.journal) == 1, "the worker to listen")
    desk.make_ready("a-0", "count")  # claimed by its first look, or because of its call
    worker.until_ended(1)
    return worker


def listening_count(journal: Journal) -> int:
    with journal.database.cursor() as cursor:
        row = cursor.execute(SESSIONS.encode()).fetchone()
    assert row is not None
    return int(row["count"])


def acquired(desk: Desk, attempt_id: str = "a-1") -> Lease:
    """An attempt that another worker holds."""
    return desk.journal.acquire(
        attempt_id=attempt_id, run_id=f"run of {attempt_id}", worker_id="w-0", kind="count"
    )


def hand_back(desk: Desk) -> None:
    desk.make_ready("a-1", "count")


def sweep(desk: Desk) -> None:
    acquired(desk)
    with desk.journal.database.cursor() as cursor:
        cursor.execute("UPDATE leases SET loss = 'reported' WHERE attempt_id = 'a-1'")
    desk.journal.sweep()


def report(desk: Desk) -> None:
    acquired(desk)
    desk.journal.report_lost(worker_id="w-0", reason="pod deleted")


def resume(desk: Desk) -> None:
    acquired(desk).wait("a person must look")
    desk.journal.resume("a-1", by="a tester", reason="looked")


@pytest.mark.parametrize("become_ready", [hand_back, sweep, report, resume])
def test_a_worker_that_sleeps_is_called_whatever_makes_an_attempt_ready(
    desk: Desk, become_ready: Callable[[Desk], None]
) -> None:
    worker = asleep(desk)

    become_ready(desk)

    assert worker.until_ended(2) == [Outcome.COMPLETED, Outcome.COMPLETED]


def test_what_becomes_ready_while_a_worker_works_is_claimed_after_it(desk: Desk) -> None:
    worker = asleep(desk)
    desk.make_ready("a-1", "hold")
    desk.child_id()

    desk.make_ready("a-2", "count")
    desk.let_go()

    assert worker.until_ended(3) == [Outcome.COMPLETED] * 3


def test_a_sleeping_worker_ends_as_soon_as_it_is_asked(desk: Desk) -> None:
    worker = asleep(desk)

    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == 0


def test_a_worker_whose_connection_was_cut_hears_again_in_the_next_one(desk: Desk) -> None:
    worker = asleep(desk)
    with desk.journal.database.cursor() as cursor:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        cursor.execute(f"{cut} AND classid = 'session_locks'::regclass".encode())
    until(lambda: listening_count(desk.journal) == 1, "the worker to listen again")

    desk.make_ready("a-1", "count")

    assert worker.until_ended(2) == [Outcome.COMPLETED, Outcome.COMPLETED]


def test_a_lost_call_only_costs_the_time_until_the_next_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = desk.start(ttl_s=30.0)
    until(lambda: listening_count(desk.journal) == 1, "the worker to listen")
    monkeypatch.setattr(
        "recovery_journal.recovery.cohort.notify_ready", lambda _database, _count: None
    )

    desk.make_ready("a-1", "count")

    assert worker.until_ended() == [Outcome.COMPLETED]


def test_a_call_that_cannot_be_made_fails_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(Database):
        def cursor(self) -> Any:
            raise ServerUnavailable(server="here", reason="it was just stopped")

    away = Away(desk.dsn, desk.journal.database.schema)
    monkeypatch.setattr(
        "recovery_journal.recovery.cohort.notify_ready",
        lambda _database, count: notify_ready(away, count),
    )

    desk.make_ready("a-1", "count")

    assert [row.attempt_id for row in desk.journal.dispatch_ready()] == ["a-1"]


def test_a_cohort_is_one_call(desk: Desk) -> None:
    for number in range(20):
        acquired(desk, f"a-{number}")
    own = desk.journal.database.open_connection().connection
    try:
        listen(own)

        desk.journal.report_lost(worker_id="w-0", reason="pod deleted")

        heard = list(own.notifies(timeout=5.0, stop_after=1)) + list(own.notifies(timeout=0))
        assert len(heard) == 1
    finally:
        own.close()


def test_calls_of_another_journal_are_not_heard(desk: Desk, server_dsn: str, schema: str) -> None:
    lock = SessionLock(desk.journal.database)
    lock.take()
    other = Database(server_dsn, schema)
    with psycopg.connect(server_dsn, autocommit=True) as elsewhere:
        elsewhere.execute("NOTIFY recovery_journal_ready_1")
    assert not lock.is_lost()
    heard_of_another = lock.take_notice()

    notify_ready(other, 3)
    until(lambda: not lock.is_lost() and has_notice(lock), "the call of the own journal")

    assert heard_of_another is None
    assert lock.take_notice() == ReadyNotice(ready_count=3, asleep_count=0)
    assert lock.take_notice() is None
    other.close()
    lock.close()


def test_a_bell_wakes_who_waits_for_a_file_too() -> None:
    bell = WakeEvent()
    is_set_before = bell.wait_with(None, 0.0)

    bell.set()
    bell.set()

    assert not is_set_before
    assert bell.wait_with(None, FOR_EVER_S)


def test_sleepers_are_counted_as_long_as_they_sleep(desk: Desk) -> None:
    sleeper, waking = SessionLock(desk.journal.database), SessionLock(desk.journal.database)
    for lock in (sleeper, waking):
        lock.take()
        lock.sleep(is_asleep=True)
    waking.sleep(is_asleep=False)

    notify_ready(desk.journal.database, 1)
    until(lambda: not sleeper.is_lost() and has_notice(sleeper), "the call")

    assert (sleeper.is_asleep, waking.is_asleep) == (True, False)
    assert sleeper.take_notice() == ReadyNotice(ready_count=1, asleep_count=1)
    sleeper.close()
    waking.close()


def test_a_lock_that_is_found_lost_on_falling_asleep_is_reported(desk: Desk) -> None:
    lock = SessionLock(desk.journal.database)
    lock.take()
    with desk.journal.database.cursor() as cursor:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        cursor.execute(f"{cut} AND classid = 'session_locks'::regclass".encode())
    until(lambda: listening_count(desk.journal) == 0, "the session to end")

    is_lost = lock.sleep(is_asleep=True)

    assert is_lost
    assert lock.number is None
    assert not lock.is_asleep


def test_of_many_sleeping_workers_a_notice_wakes_only_some() -> None:
    heard = ReadyNotice(ready_count=1, asleep_count=1_000)

    lots = [heard.wake_delay_s(is_asleep=True) for _ in range(1_000)]

    assert 0 < sum(lot is not None for lot in lots) < 100


def test_a_worker_that_is_awake_comes_at_every_notice() -> None:
    heard = ReadyNotice(ready_count=1, asleep_count=1_000)

    assert all(heard.wake_delay_s(is_asleep=False) == 0 for _ in range(1_000))


def test_few_sleepers_all_come_at_once() -> None:
    heard = ReadyNotice(ready_count=1, asleep_count=10)

    assert all(heard.wake_delay_s(is_asleep=True) == 0 for _ in range(1_000))


def test_a_large_crowd_comes_one_after_another() -> None:
    heard = ReadyNotice(ready_count=1_000, asleep_count=1_000)

    lots = [heard.wake_delay_s(is_asleep=True) for _ in range(1_000)]

    assert all(lot is not None and lot < 1 for lot in lots)
    assert len(set(lots)) > 900


@pytest.mark.parametrize("payload", ["", "many", "3", "3 -1"])
def test_a_call_without_numbers_is_for_everybody(payload: str) -> None:
    assert ReadyNotice.read(payload).wake_delay_s(is_asleep=True) == 0
