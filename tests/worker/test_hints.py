"""Notifications are hints: no text and no number of them raises, blocks or delays anything."""

import time
from collections.abc import Iterator
from multiprocessing.connection import wait

import psycopg
import pytest

from recovery_journal.journal import Journal
from recovery_journal.store.ready_notice import CHANNEL, LONGEST_TURN_S, ReadyNotice
from recovery_journal.worker import ready_listener, worker
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.wake_event import WakeEvent
from recovery_journal.worker.worker import LONGEST_CALLED_PAUSE_S, LONGEST_PAUSE_S
from tests.worker.functions import has_notice, until

FOR_EVERYBODY = ReadyNotice(ready_count=0, asleep_count=0)
NOT_OURS = {
    "empty": "",
    "5,000 digits": "9" * 5_000,
    "5,000 digits twice": f"{'9' * 3_900} {'9' * 3_900}",
    "400 digits": f"1 {'9' * 400}",
    "ten digits": "1000000000 1000000000",
    "Arabic digits": "\u0661\u0662 \u0663",
    "a superscript": "\u00b2 \u00b2",
    "full-width digits": "\uff11 \uff12",
    "nearly 8,000 bytes": "x" * 7_900,
    "negative": "-1 -1",
    "not a number": "nan inf",
    "a float": "1e9 1e9",
    "underscores": "1_0 1_0",
    "a line break": "1 1\n",
    "two blanks": "1  1",
    "three numbers": "1 1 1",
    "quotes": "'; DROP TABLE leases; --",
}


@pytest.fixture
def lock(journal: Journal) -> Iterator[SessionLock]:
    lock = SessionLock(journal.database)
    assert lock.take()
    yield lock
    lock.close()


@pytest.fixture
def channel(journal: Journal) -> str:
    with journal.database.cursor() as cursor:
        row = cursor.execute(CHANNEL).fetchone()
    assert row is not None
    return str(row["name"])


@pytest.fixture
def stranger(server_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        yield connection


def notify(stranger: psycopg.Connection, channel: str, payload: str, count: int = 1) -> None:
    """Many at once differ, because the server sends equal ones of one transaction once."""
    stranger.execute(
        "SELECT pg_notify(%s, %s || CASE WHEN n = 1 THEN '' ELSE n::text END) "
        "FROM generate_series(1, %s) AS n",
        (channel, payload, count),
    )


@pytest.mark.parametrize("payload", NOT_OURS.values(), ids=NOT_OURS)
def test_a_payload_that_is_not_ours_is_for_everybody(payload: str) -> None:
    assert ReadyNotice.read(payload) == FOR_EVERYBODY
    assert ReadyNotice.read(payload).wake_delay_s(is_asleep=True) == 0


def test_no_call_keeps_a_worker_longer_than_its_ordinary_pause() -> None:
    heard = ReadyNotice.read("999999999 999999999")

    lots = [
        heard.wake_delay_s(is_asleep=is_asleep) for is_asleep in (True, False) for _ in range(1_000)
    ]

    assert LONGEST_TURN_S < LONGEST_CALLED_PAUSE_S
    assert all(lot is None or lot <= LONGEST_TURN_S for lot in lots)


@pytest.mark.parametrize("payload", NOT_OURS.values(), ids=NOT_OURS)
def test_a_session_lock_survives_every_payload(
    lock: SessionLock, stranger: psycopg.Connection, channel: str, payload: str
) -> None:
    notify(stranger, channel, payload)

    until(lambda: not lock.is_lost() and has_notice(lock), "the notification")
    assert lock.take_notice() == FOR_EVERYBODY

    notify(stranger, channel, payload)
    lock.sleep(is_asleep=True)  # it comes with the answer to a statement

    assert lock.number is not None
    assert lock.problems() == []


def test_bytes_in_another_encoding_are_heard_as_a_hint_too(lock: SessionLock) -> None:
    class Notice:
        relname, extra, be_pid = b"channel", b"\xff\xfe 1", 1

    lock._listener.receive(Notice())  # type: ignore[arg-type]  # as a server without encodings sends it

    assert lock.take_notice() == FOR_EVERYBODY


def test_one_reading_is_bounded_and_loses_nothing_that_is_not_a_flood(
    lock: SessionLock,
    stranger: psycopg.Connection,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready_listener, "READS_AT_ONCE", 1)
    monkeypatch.setattr(ready_listener, "FLOOD_COUNT", 10_000)
    notify(stranger, channel, "x" * 7_000, count=500)
    notify(stranger, channel, "3 4")
    rounds, last = 0, None
    while last != ReadyNotice(ready_count=3, asleep_count=4):
        assert not lock.is_lost()
        last = lock.take_notice() or last
        rounds += 1

    assert rounds > 10


def test_a_flood_is_left_for_a_session_that_does_not_listen(
    journal: Journal, lock: SessionLock, stranger: psycopg.Connection, channel: str
) -> None:
    first = lock.number
    notify(stranger, channel, "5 ", count=3 * ready_listener.FLOOD_COUNT)

    until(lock.is_lost, "the flood to be noticed")

    assert (lock.number, lock.file, has_notice(lock)) == (None, None, False)
    assert first in locks_of(journal), "the server must not believe that this worker is dead"
    (problem,) = lock.problems()
    assert problem.startswith("cannot listen for ready attempts: found more than 2,000 ")
    assert lock.take()
    assert set(locks_of(journal)) == {first, lock.number}
    assert not lock.is_listening
    lock.settle()
    until(lambda: locks_of(journal) == [lock.number], "the session that was left to end")
    notify(stranger, channel, "5 ", count=3 * ready_listener.FLOOD_COUNT)
    assert not lock.is_lost()
    assert not has_notice(lock)


def test_after_a_flood_it_listens_again_once_it_is_over(
    lock: SessionLock, stranger: psycopg.Connection, channel: str
) -> None:
    lock._listener._pause_s = 0.1
    notify(stranger, channel, "5 ", count=3 * ready_listener.FLOOD_COUNT)
    until(lock.is_lost, "the flood to be noticed")
    assert lock.take()

    assert not lock.is_listening
    until(lambda: not lock.listen_again() and lock.is_listening, "it to listen")
    notify(stranger, channel, "7 8")
    until(lambda: not lock.is_lost() and has_notice(lock), "the next call")
    assert lock.take_notice() == ReadyNotice(ready_count=7, asleep_count=8)


def test_each_flood_is_followed_by_a_longer_silence_up_to_a_limit() -> None:
    ear = ready_listener.ReadyListener()

    deaf = [ear.pause() for _ in range(10)]

    assert deaf[0] == ready_listener.SHORTEST_LISTENING_PAUSE_S
    assert deaf == sorted(deaf)
    assert deaf[-1] == ready_listener.LONGEST_LISTENING_PAUSE_S


def test_falling_asleep_is_not_held_up_by_a_flood(
    lock: SessionLock, stranger: psycopg.Connection, channel: str
) -> None:
    notify(stranger, channel, "5 ", count=20 * ready_listener.FLOOD_COUNT)
    until(lambda: wait([lock.file or 0], 0), "the flood to begin to arrive")

    must_take_another = False
    while not must_take_another:
        must_take_another = lock.sleep(is_asleep=not lock.is_asleep)

    assert lock.number is None
    assert lock.take()


def pause(lock: SessionLock) -> worker._Pause:
    return worker._Pause(WakeEvent(), lock, 0.001)


def test_hints_without_end_cost_about_as_many_claims_as_none(
    lock: SessionLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end of a pause is a claim. There is always another hint, and none of them is true."""
    monkeypatch.setattr(lock, "take_notice", lambda: FOR_EVERYBODY)
    waits = pause(lock)
    count, until_s = 0, time.monotonic() + 2.0
    while time.monotonic() < until_s:
        waits.wait(LONGEST_CALLED_PAUSE_S)
        count += 1

    # 20, 40, 80, 160 ms, and then every 250 ms; the pauses of their own double as well.
    assert count <= 2.0 / worker.LONGEST_HINT_PAUSE_S + 20


def test_a_notice_that_wakes_no_worker_does_not_make_a_pause_longer(
    lock: SessionLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadyNotice, "wake_delay_s", lambda _self, **_: None)
    monkeypatch.setattr(lock, "take_notice", lambda: FOR_EVERYBODY)

    pause(lock).wait(LONGEST_PAUSE_S)  # ends by itself

    monkeypatch.setattr(ReadyNotice, "wake_delay_s", lambda _self, **_: 10_000.0)
    pause(lock).wait(LONGEST_PAUSE_S)


def test_a_first_call_ends_a_pause_at_once(
    lock: SessionLock, stranger: psycopg.Connection, channel: str
) -> None:
    waits = worker._Pause(WakeEvent(), lock, 3_600.0)
    notify(stranger, channel, "1 0")

    waits.wait(7_200.0)

    assert not has_notice(lock)


def locks_of(journal: Journal) -> list[int]:
    with journal.database.cursor() as cursor:
        found = cursor.execute(
            "SELECT objid::bigint AS number FROM pg_locks "
            "WHERE locktype = 'advisory' AND classid = 'session_locks'::regclass"
        ).fetchall()
    return [row["number"] for row in found]
