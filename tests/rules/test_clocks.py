"""Rule R6: the clock is the database's, whatever a worker's or a sweeper's own one shows."""

import time
from datetime import UTC, datetime, timedelta

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import LeaseExpired
from tests.rules.scenes import SHORT, events_of, held, sweep_until

YEAR_S = 365 * 24 * 3600


@pytest.fixture(params=[-YEAR_S, YEAR_S], ids=["a year slow", "a year fast"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's clock, as a worker on a machine without time service may have it."""
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + request.param)
    monkeypatch.setattr(time, "time_ns", lambda: int((true_time() + request.param) * 1e9))


def database_now(journal: rj.Journal) -> datetime:
    return journal.now().astimezone(UTC)


@pytest.mark.usefixtures("wrong_clock")
def test_a_live_lease_is_not_lost_to_a_sweeper_whose_clock_is_wrong(journal: rj.Journal) -> None:
    lease = journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-1", ttl=timedelta(seconds=60)
    )

    swept = journal.sweep()

    assert swept == []
    assert lease.heartbeat().expires_at > database_now(journal)


@pytest.mark.usefixtures("wrong_clock")
def test_a_lease_ends_a_ttl_after_its_renewal_by_the_databases_clock(journal: rj.Journal) -> None:
    lease = journal.acquire(
        attempt_id="a-1", run_id="r-1", worker_id="w-1", ttl=timedelta(seconds=60)
    )
    before = database_now(journal)

    expires_at = lease.heartbeat().expires_at

    after = database_now(journal)
    assert before <= expires_at - timedelta(seconds=60) <= after


@pytest.mark.usefixtures("wrong_clock")
def test_events_are_recorded_at_the_databases_time(journal: rj.Journal) -> None:
    before = database_now(journal)

    journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")

    after = database_now(journal)
    [granted] = journal.history("a-1")
    assert before <= granted.recorded_at <= after


def test_a_loss_has_the_time_of_the_statement_that_found_it(journal: rj.Journal) -> None:
    held(journal, ttl=SHORT)

    sweep_until(journal)

    [lost] = events_of(journal, LeaseExpired)
    assert lost.lease.seen_at - lost.lease.expires_at > timedelta(seconds=lost.lease.grace_s)
