"""A transaction that has appended and does not end delays readers; they name its process, and
lose nothing."""

from collections.abc import Iterator

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.monitoring.delays import DelayKind
from tests.rules.scenes import OpenJournal, held, rows, session, until

APPEND = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES ('somebody else', 1, 'lease-granted', '{}')
"""
LONG_OPEN = "clock_timestamp() - xact_start > interval '1.1 seconds' AS is_so FROM pg_stat_activity"


@pytest.fixture
def idle(journal: rj.Journal, server_dsn: str) -> Iterator[psycopg.Connection[tuple[object]]]:
    """A session without our limits that has appended and then sits there."""
    held(journal)
    with session(journal, f"{server_dsn}") as connection:
        connection.execute("SET application_name = 'psql of clerk-4'")
        connection.execute(APPEND.encode())
        pid = {"pid": connection.info.backend_pid}
        until(
            lambda: rows(journal, f"SELECT {LONG_OPEN} WHERE pid = %(pid)s", pid)[0]["is_so"],
            "an open transaction of a second",
        )
        yield connection


def open_transactions(journal: rj.Journal) -> list[str]:
    return [
        f"{one.what}; {one.do}"
        for one in journal.status().delays
        if one.kind is DelayKind.OPEN_TRANSACTION and one.since is not None
    ]


def test_the_status_names_the_process_since_when_and_how_to_end_it(
    journal: rj.Journal, idle: psycopg.Connection[tuple[object]]
) -> None:
    (said,) = open_transactions(journal)

    pid = idle.info.backend_pid
    assert f"process {pid} (psql of clerk-4), idle in transaction" in said
    assert f"pg_terminate_backend({pid})" in said


def test_readers_wait_at_the_gap_and_miss_nothing_afterwards(
    open_journal: OpenJournal, journal: rj.Journal, idle: psycopg.Connection[tuple[object]]
) -> None:
    before = [entry.position for entry in journal.log()]
    held(journal, "a-2")
    reader = open_journal()

    waiting = [entry.position for entry in reader.log()]
    last = reader.reader.last_position()
    idle.rollback()
    settled = [entry.position for entry in reader.log()]

    assert waiting == before
    assert settled == [*before, last]
    assert open_transactions(journal) == []


def test_who_is_busy_for_a_moment_is_no_delay(journal: rj.Journal) -> None:
    held(journal)

    assert journal.status().delays == []
