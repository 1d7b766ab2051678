"""The result of an attempt can be read, until it is pruned."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

import recovery_journal as rj


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    with rj.open(server_dsn, schema=schema) as opened:
        yield opened


def test_the_result_of_a_completed_attempt_is_what_its_worker_gave(journal: rj.Journal) -> None:
    lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")

    lease.complete({"total": 42, "raw": b"\x00"})

    assert journal.result("a-1") == {"total": 42, "raw": b"\x00"}


def test_the_result_of_an_attempt_that_has_not_ended_is_refused(journal: rj.Journal) -> None:
    journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")

    with pytest.raises(rj.WrongStage, match="found stage held, needed completed"):
        journal.result("a-1")


def test_the_result_of_an_unknown_attempt_is_refused(journal: rj.Journal) -> None:
    with pytest.raises(rj.UnknownAttempt, match="a-1"):
        journal.result("a-1")


def test_a_pruned_result_is_named_by_its_digest(journal: rj.Journal) -> None:
    lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")
    digest = lease.complete(42)

    journal.prune(older_than=timedelta(0))

    with pytest.raises(rj.ResultPruned, match=digest):
        journal.result("a-1")
