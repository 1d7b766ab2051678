"""A role that may do nothing but append to the log, beside a fleet: three workers and a sweeper
end every honest attempt, whatever it appends or leaves open, and all of them live on."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import recovery_journal as rj
from tests.acceptance.hostile_program import LIMITS
from tests.acceptance.programs import Program, started
from tests.acceptance.stop import Settings
from tests.rules.forgeries import KINDS, next_version
from tests.rules.scenes import report, rows, until

PROGRAM: Final = "tests.acceptance.hostile_program"
FLEET: Final = ("worker-1", "worker-2", "worker-3", "sweeper", "follower")
HONEST_COUNT: Final = 12
APPEND: Final = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
"""
ENDED: Final = """
SELECT count(*) AS count
FROM leases
WHERE status = 'completed' AND attempt_id LIKE 'honest%%'
"""
ATTACKED: Final = ("attacked and ready", "attacked and lost", "attacked and held")

# Damages of each kind.
FORGERIES: Final = (
    "seized with the largest epoch",
    "dispatched to a stranger",
    "a recovery number of 64 bits",
    "a second grant",
    "completed",
    "cancelled",
    "confirmed",
    "quarantine lifted",
    "no JSON",
    "not UTF-8",
    "deep nesting",
    "a mebibyte",
    "an unknown tag",
)

Forger = psycopg.Connection[Any]


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """The limits are the fleet's. It is not in step with its log: that is what is tested."""
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal


@pytest.fixture
def forger(journal: rj.Journal, server_dsn: str) -> Iterator[Forger]:
    """A session with the rights of a writer of the log, and no others."""
    role = Identifier(f"forger_{uuid4().hex[:8]}")
    schema = journal.database.schema
    options = f"-c search_path={schema}"
    with psycopg.connect(server_dsn, options=options, autocommit=True) as owner:
        owner.execute(SQL("CREATE ROLE {}").format(role))
        owner.execute("SELECT journal_grant_writer(%s::text::regrole)", [role.as_string()])
        with psycopg.connect(server_dsn, options=options) as session:
            session.execute(SQL("SET ROLE {}").format(role))
            session.commit()
            yield session
            session.rollback()
        owner.execute(SQL("DROP OWNED BY {}").format(role))
        owner.execute(SQL("DROP ROLE {}").format(role))


@contextmanager
def fleet(journal: rj.Journal, dsn: str) -> Iterator[dict[str, Program]]:
    """Three workers, a sweeper and a follower, each a process."""
    with ExitStack() as stack:
        programs = {}
        for role in FLEET:
            given = Settings(dsn=dsn, schema=journal.database.schema, stop_at=role)
            programs[role] = stack.enter_context(started(PROGRAM, given))
        yield programs


def begin(journal: rj.Journal, attempt_id: str) -> rj.Lease:
    """An attempt whose worker is not there."""
    return journal.acquire(
        attempt_id=attempt_id, run_id=f"run of {attempt_id}", worker_id=f"dead {attempt_id}"
    )


def scene(journal: rj.Journal) -> None:
    """Honest attempts, half of them ready and half held by the dead; and those to be attacked,
    which stand at the head of every order."""
    report(journal, begin(journal, "attacked and ready"))
    for number in range(HONEST_COUNT):
        lease = begin(journal, f"honest {number:02}")
        if number % 2:
            report(journal, lease)
    begin(journal, "attacked and lost")
    begin(journal, "attacked and held").heartbeat()


def assert_honest_ones_end(journal: rj.Journal, programs: dict[str, Program]) -> None:
    until(
        lambda: rows(journal, ENDED)[0]["count"] == HONEST_COUNT,
        f"the end of {HONEST_COUNT} honest attempts",
    )
    assert [role for role, program in programs.items() if program.process.poll() is not None] == []


def assert_all_are_set_aside(journal: rj.Journal) -> None:
    until(lambda: len(journal.quarantined()) == len(ATTACKED), "the attacked to be set aside")
    assert {one.attempt_id for one in journal.quarantined()} == set(ATTACKED)
    assert "set_aside" in [delay.kind for delay in journal.status().delays]


@pytest.mark.parametrize("kind", FORGERIES)
def test_every_honest_attempt_ends_beside_forged_events(
    journal: rj.Journal, forger: Forger, server_dsn: str, kind: str
) -> None:
    scene(journal)
    positions = []
    for attempt_id in (*ATTACKED, "no-one's", ""):
        version = next_version(journal, attempt_id)
        forger.execute(APPEND, [attempt_id, version, *KINDS[kind](journal, attempt_id)])
        forger.commit()
        positions.append(journal.reader.last_position())

    with fleet(journal, server_dsn) as programs:
        assert_honest_ones_end(journal, programs)
        assert_all_are_set_aside(journal)
        # A person skips each, and these attempts end as well.
        for position in positions[:-1]:
            journal.skip(position, by="on-call", reason="a forger")
        until(
            lambda: rows(journal, "SELECT FROM leases WHERE status <> 'completed'") == [],
            "the end of the attempts that were attacked",
        )
        for role in FLEET:
            programs[role].process.send_signal(signal.SIGTERM)
            assert programs[role].until_ended() == 0
    assert journal.quarantined() == []
    follow_and_check(journal)


@pytest.mark.parametrize("attacked", [ATTACKED[:1], ATTACKED], ids=["one attempt", "three"])
def test_every_honest_attempt_ends_beside_inserts_that_are_left_open(
    journal: rj.Journal, forger: Forger, server_dsn: str, attacked: tuple[str, ...]
) -> None:
    scene(journal)
    for attempt_id in attacked:
        version = next_version(journal, attempt_id)
        forger.execute(APPEND, [attempt_id, version, "confirmed", b"{}"])

    with fleet(journal, server_dsn) as programs:
        assert_honest_ones_end(journal, programs)
        until(
            lambda: {one.attempt_id for one in journal.quarantined()} >= set(attacked),
            "those with an open insert to be set aside",
        )
        assert "open_transaction" in [delay.kind for delay in journal.status().delays]
        forger.rollback()
        until(
            lambda: rows(journal, "SELECT FROM leases WHERE status <> 'completed'") == [],
            "the end of the attempts that were attacked",
        )
    assert journal.quarantined() == []


def follow_and_check(journal: rj.Journal) -> None:
    """The follower has reached the end, and its rows are those of a fold from scratch."""
    rj.Follower(journal).catch_up(30)
    stale = [it.name for it in journal.status().projections if it.state != "following"]
    if stale:
        journal.rebuild(stale, process_count=1)
    assert all(one.is_right for one in journal.check())
