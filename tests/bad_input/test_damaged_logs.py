"""A log that was damaged in the database: each reader continues, or says where it stops and why."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.main import main
from scripts.fuzzing.mutation import mutate
from scripts.fuzzing.stored import StoredRow, read, seeds
from tests.bad_input.scene import assert_refusal
from tests.bad_input.test_public_calls import TOLERANT
from tests.schemas import own_schema

EXAMPLES = int(os.environ.get("RECOVERY_JOURNAL_EXAMPLES", "6"))
WHOLE_STREAMS = tuple(seeds())[-20:]
APPEND = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
"""
EARLY = b"0001-01-01T00:00:00+14:00"
LATE = b"9999-12-31T23:59:59-14:00"


def damaged_logs() -> st.SearchStrategy[bytes]:
    """Whole streams with some changes."""
    return st.builds(_changed, st.sampled_from(WHOLE_STREAMS), st.integers(0, 2**32))


def _changed(log: bytes, number: int) -> bytes:
    random = Random(number)
    for _ in range(random.choice((1, 2, 5))):
        log = mutate(log, random, lambda it: it)
    return log


@settings(TOLERANT, max_examples=EXAMPLES)
@given(log=damaged_logs())
def test_every_reader_continues_or_says_where_it_stops(
    server_dsn: str, capfd: pytest.CaptureFixture[str], log: bytes
) -> None:
    _read_by_all(server_dsn, read(log), capfd)


@pytest.mark.parametrize("time", [EARLY, LATE], ids=["early", "late"])
def test_times_at_the_ends_of_the_calendar_stop_no_reader_without_a_message(
    server_dsn: str, capfd: pytest.CaptureFixture[str], time: bytes
) -> None:
    log = WHOLE_STREAMS[4].replace(b"2031-05-06T07:1", time + b'","then":"2031-05-06T07:1')

    _read_by_all(server_dsn, read(log), capfd)


def _read_by_all(dsn: str, rows: list[StoredRow], capfd: pytest.CaptureFixture[str]) -> None:
    with own_schema(dsn) as schema, rj.open(dsn, schema=schema) as journal:
        streams = _append(journal, rows)
        for read_by in _readers(journal, streams):
            try:
                read_by()
            except rj.RecoveryJournalError as error:
                assert_refusal(error)
        where = ["--dsn", dsn, "--schema", schema]
        for words in _commands(streams):
            capfd.readouterr()
            code = main([*where, *words])
            said = capfd.readouterr()
            assert code != ExitCode.UNEXPECTED, (words, said.err[-3_000:])


def _append(journal: rj.Journal, rows: list[StoredRow]) -> list[str]:
    """Insert those of these rows that a log accepts; return its streams."""
    streams = set()
    with journal.database.cursor() as cursor:
        for row in rows:
            try:
                cursor.execute(APPEND, [row.stream, row.version, row.tag, row.state])
            except psycopg.Error:  # out of order: a log never holds such a row
                continue
            streams.add(row.stream)
    return sorted(streams)


def _readers(journal: rj.Journal, streams: list[str]) -> Iterator[Callable[[], object]]:
    for stream in streams:
        yield partial(journal.history, stream)
        yield partial(journal.recovery, stream)
    yield lambda: rj.Follower(journal).catch_up(60)
    for _ in range(2):
        yield journal.log
        yield journal.contexts
        yield journal.dispatch_ready
        yield lambda: journal.dispatch_ready(at=1)
        yield lambda: [list(journal.rows(it)) for it in journal.projections]
        yield journal.status
        yield journal.sweep
        yield journal.check
        yield lambda: journal.rebuild(process_count=1)


def _commands(streams: list[str]) -> Iterator[list[str]]:
    for stream in streams[:2]:
        yield ["history", "--", stream]
        yield ["history", "--json", "--", stream]
        yield ["show", "--", stream]
        yield ["show", "--json", "--", stream]
    yield ["log", "--after", "0"]
    yield ["log", "--json"]
    yield ["ready"]
    yield ["status"]
    yield ["rebuild", "--check"]
