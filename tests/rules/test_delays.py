"""The status shows what is delayed, since when, and what helps."""

from datetime import timedelta

import recovery_journal as rj
from tests.rules.scenes import change, held, worked

AN_HOUR = {"age": timedelta(hours=1)}


def kinds(journal: rj.Journal) -> list[str]:
    return [one.kind.value for one in journal.status().delays]


def test_a_lost_lease_that_no_sweeper_takes_is_shown_until_one_does(journal: rj.Journal) -> None:
    worked(held(journal))
    change(
        journal, "UPDATE leases SET loss = 'reported', renewed_at = renewed_at - %(age)s", AN_HOUR
    )

    (delay,) = journal.status().delays
    journal.sweep()

    assert (delay.kind, delay.do) == ("not_swept", "see that a sweeper runs: recovery-journal run")
    assert "(1)" in delay.what
    assert delay.since is not None
    assert timedelta(hours=1) <= journal.now() - delay.since < timedelta(hours=1, minutes=5)
    assert kinds(journal) == []


def test_a_recovery_whose_sweeper_is_gone_is_shown_too(journal: rj.Journal) -> None:
    held(journal)
    change(
        journal, "UPDATE leases SET status = 'recovering', retry_at = renewed_at - %(age)s", AN_HOUR
    )

    found = kinds(journal)
    change(journal, "UPDATE leases SET status = 'held', retry_at = NULL")

    assert found == ["not_swept"]
    assert kinds(journal) == []


def test_a_living_lease_is_no_delay_however_old_it_is(journal: rj.Journal) -> None:
    held(journal)
    change(
        journal,
        "UPDATE leases SET granted_at = granted_at - %(age)s, renewed_at = renewed_at - %(age)s",
        AN_HOUR,
    )

    assert kinds(journal) == []


def test_settled_events_that_no_follower_folds_are_shown_until_one_does(
    journal: rj.Journal,
) -> None:
    held(journal)
    change(journal, "ALTER TABLE journal_events DISABLE TRIGGER ALL")
    change(journal, "UPDATE journal_events SET recorded_at = recorded_at - %(age)s", AN_HOUR)
    change(journal, "ALTER TABLE journal_events ENABLE TRIGGER ALL")

    (delay,) = journal.status().delays
    rj.Follower(journal).catch_up(timeout_s=20)

    assert delay.kind == "not_followed"
    assert "workers" in delay.what
    assert delay.since is not None
    assert journal.now() - delay.since >= timedelta(hours=1)
    assert kinds(journal) == []
