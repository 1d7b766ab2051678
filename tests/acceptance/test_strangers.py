"""A fleet at work beside a role that may merely connect, which uses the same cores: every honest
attempt ends within `LIMIT_S`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

import recovery_journal as rj
from tests.acceptance.fleet_program import LIMITS, SWEEPER
from tests.acceptance.programs import Program, launched, started
from tests.acceptance.stop import Settings
from tests.acceptance.stranger_program import ACTS, FAMILIES
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import held, rows, types_of, until

FLEET = "tests.acceptance.fleet_program"
STRANGER = "tests.acceptance.stranger_program"
WORKERS = ("w-1", "w-2", "w-3")
ATTEMPT_COUNT = 12

ASLEEP = """
SELECT count(DISTINCT pid) AS count
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 'epochs'::regclass AND granted
"""
OPEN = "SELECT FROM leases WHERE status <> 'completed'"


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal
        assert_in_step(journal)


@contextmanager
def stranger_at(dsn: str) -> Iterator[str]:
    """A role without any right but to connect."""
    name = f"stranger_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        try:
            yield make_conninfo(dsn, user=name)
        finally:
            end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
            owner.execute(end, (name,))
            owner.execute(SQL("DROP ROLE {}").format(Identifier(name)))


@pytest.mark.parametrize("act", ACTS)
def test_every_honest_attempt_ends_whatever_a_connected_stranger_does(
    journal: rj.Journal, server_dsn: str, act: str
) -> None:
    with stranger_at(server_dsn) as stranger_dsn, ExitStack() as stack:
        schema = journal.database.schema
        programs: dict[str, Program] = {
            name: stack.enter_context(
                started(FLEET, Settings(dsn=server_dsn, schema=schema, stop_at=name))
            )
            for name in (*WORKERS, SWEEPER)
        }
        until(lambda: rows(journal, ASLEEP)[0]["count"] == len(WORKERS), "the workers to sleep")
        (families,) = rows(journal, FAMILIES)
        numbers = f"{families['workers']} {families['sleepers']}"
        settings = Settings(dsn=stranger_dsn, schema=numbers, stop_at=act)
        act_program = stack.enter_context(launched(STRANGER, settings))
        act_program.until_said(act)

        for number in range(ATTEMPT_COUNT):
            held(journal, f"a-{number}", kind="job").hand_back()
        until(lambda: not rows(journal, OPEN), "all attempts to end")

        assert act_program.process.poll() is None, "the stranger is still at it"
        assert all(program.process.poll() is None for program in programs.values())
        for number in range(ATTEMPT_COUNT):
            assert types_of(journal, f"a-{number}").count("LeaseExpired") == 1  # handed back
