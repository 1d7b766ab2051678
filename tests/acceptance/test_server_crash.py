"""Acknowledged writes survive a crash of the server, whatever the role's settings say."""

from contextlib import suppress
from typing import LiteralString

import psycopg
import pytest

import recovery_journal as rj
from tests.servers import PrivateServer

STEP_COUNT = 150
WEAKER: tuple[LiteralString, ...] = (
    "ALTER ROLE postgres SET synchronous_commit = off",
    "ALTER DATABASE postgres SET synchronous_commit = off",
    "ALTER ROLE ALL SET synchronous_commit = local",
)


@pytest.mark.parametrize("setting", WEAKER)
def test_acknowledged_run_steps_survive_a_crash_of_the_server(
    private_server: PrivateServer, setting: LiteralString
) -> None:
    with psycopg.connect(private_server.dsn, autocommit=True) as connection:
        connection.execute(setting)
    journal = rj.open(private_server.dsn)
    lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")
    for number in range(STEP_COUNT):
        lease.record_step(f"charge {number}", number)

    private_server.kill()
    private_server.start()
    with suppress(rj.Retry):  # the cut connection is noticed by its next use
        journal.status()

    claim = journal.load(lease)
    assert [step.output for step in claim.tail] == list(range(STEP_COUNT))
    assert len(journal.history("a-1")) == 2
    journal.close()


def test_a_server_that_does_not_keep_what_it_acknowledges_is_warned_of(
    private_server: PrivateServer,
) -> None:
    with psycopg.connect(private_server.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET full_page_writes = off")
    private_server.restart()

    with pytest.warns(rj.DurabilityWeakened, match="is off: a crash") as warned:
        journal = rj.open(private_server.dsn)

    assert len(warned) == 2
    assert [problem.do for problem in journal.status().problems] == [
        "set fsync = on",
        "set full_page_writes = on",
    ]
    journal.close()
