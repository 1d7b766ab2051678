"""A stranger in a process of its own: `python -m tests.acceptance.stranger_program <settings>`.

It may merely connect, and does its act again and again until it is killed. `stop_at` is the act.
"""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle

import psycopg
from msgspec import json

from tests.acceptance.stop import Settings, say

PAYLOADS = (
    "9" * 5_000,
    "1000000000 1000000000",
    "999999999 999999999",
    "0 999999999",
    "",
    "\u00b2 \u00b2",
    "\u0661\u0662 \u0663",
    "x" * 7_900,
    "-1 -1",
    "1 0",
    "nan inf",
    "1 " + "9" * 400,
)
FAMILIES = """
SELECT 'session_locks'::regclass::oid::bigint AS workers,
    'epochs'::regclass::oid::bigint AS sleepers
"""
NUMBERS = """
SELECT (classid::bigint << 32) | objid::bigint
FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND granted AND pid <> pg_backend_pid()
"""

Act = Callable[[psycopg.Connection, int, int], Iterator[None]]


def send(connection: psycopg.Connection, workers: int, _sleepers: int) -> Iterator[None]:
    """Payloads of every kind, now and then many of one."""
    for payload, times in zip(cycle(PAYLOADS), cycle((1, 1, 1, 1, 50)), strict=False):
        connection.execute(
            "SELECT pg_notify(%s, %s) FROM generate_series(1, %s)",
            (f"recovery_journal_ready_{workers}", payload, times),
        )
        yield
        time.sleep(0.002)


def flood(connection: psycopg.Connection, workers: int, _sleepers: int) -> Iterator[None]:
    """As many as the server takes."""
    for number in count():
        connection.execute(
            "SELECT pg_notify(%s, '5 ' || n) FROM generate_series(%s::bigint, %s) n",
            (f"recovery_journal_ready_{workers}", 3_000 * number, 3_000 * number + 2_999),
        )
        yield


def trickle(connection: psycopg.Connection, workers: int, _sleepers: int) -> Iterator[None]:
    """Too few for a flood, and always for everybody."""
    for _ in count():
        connection.execute("SELECT pg_notify(%s, '')", (f"recovery_journal_ready_{workers}",))
        yield
        time.sleep(0.001)


def sleepers(connection: psycopg.Connection, _workers: int, sleepers: int) -> Iterator[None]:
    """Waits for the sleepers' lock, exclusively, or has it."""
    connection.execute("SET lock_timeout = '300ms'")
    for _ in count():
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (sleepers << 32,))
        except psycopg.errors.LockNotAvailable:
            yield
            continue
        yield
        time.sleep(0.3)
        connection.execute("SELECT pg_advisory_unlock_all()")


def squat(connection: psycopg.Connection, workers: int, _sleepers: int) -> Iterator[None]:
    """The numbers that a sequence would give next, and those after each one in use."""
    for _ in count():
        used = [row[0] for row in connection.execute(NUMBERS, (workers,)).fetchall()]
        for number in [(workers << 32) + 1, *(one + 1 for one in used)]:
            connection.execute(
                "SELECT pg_try_advisory_lock(n) FROM generate_series(%s::bigint, %s) n",
                (number, number + 500),
            )
        yield
        time.sleep(0.1)
        connection.execute("SELECT pg_advisory_unlock_all()")


def queue(connection: psycopg.Connection, workers: int, _sleepers: int) -> Iterator[None]:
    """Waits for the lock of one worker after the other, and keeps what it gets for a while."""
    connection.execute("SET lock_timeout = '300ms'")
    for _ in count():
        for row in connection.execute(NUMBERS, (workers,)).fetchall():
            try:
                connection.execute("SELECT pg_advisory_lock(%s)", (row[0],))
            except psycopg.errors.LockNotAvailable:
                continue
            yield
        yield
        time.sleep(0.05)


ACTS: dict[str, Act] = {
    "send": send,
    "flood": flood,
    "trickle": trickle,
    "sleepers": sleepers,
    "squat": squat,
    "queue": queue,
}


def main(settings: Settings) -> None:
    with psycopg.connect(settings.dsn, autocommit=True) as connection:
        numbers = [int(word) for word in settings.schema.split()]
        act = ACTS[settings.stop_at](connection, *numbers)
        next(act)
        say(settings.stop_at)
        for _ in act:
            pass


if __name__ == "__main__":
    main(json.decode(sys.argv[1], type=Settings))
