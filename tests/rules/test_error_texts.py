"""What an error says may quote a payload, so it never enters the log unless that is wanted."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.commands.essentials import essentials
from recovery_journal.domain.error_texts import ErrorTexts, text_digest
from recovery_journal.domain.events import LeaseEnded, LeaseExpired, Quarantined, StepFailed
from recovery_journal.domain.policy import Policy
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    rows,
    worked,
)

QUOTED = "Jane Doe, card 4711"
NOW = timedelta(0)
ONE_TRY = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=Policy(raise_limit=1))
IN_THE_LOG = rj.Limits(ttl_s=60.0, grace_s=0.0, error_texts=ErrorTexts.LOG)


class OrderRefused(Exception):
    """An error of the user's own."""


def refuse(_state: Any, _name: str, _output: Any) -> Any:
    raise OrderRefused(f"cannot bill {QUOTED}")


def is_kept_for_ever(journal: rj.Journal) -> bool:
    """Whether the secret is in any table of the schema but in that of the erasable texts."""
    named = rows(
        journal,
        "SELECT relname::text AS name FROM pg_class WHERE relkind = 'r'"
        " AND relnamespace = current_schema()::regnamespace AND relname <> 'error_texts'",
    )
    names = [row["name"] for row in named]
    queries = [f'SELECT "{name}"::text FROM "{name}"' for name in names]  # noqa: S608 - our tables
    found = "\n".join(str(row) for query in queries for row in rows(journal, query))
    assert b"lease-granted".hex() in found  # bytes are shown as such digits
    return QUOTED in found or QUOTED.encode().hex() in found


@pytest.mark.parametrize("error", [OrderRefused(f"cannot bill {QUOTED}"), f"cannot bill {QUOTED}"])
def test_a_failure_leaves_its_class_and_digest_in_the_log_and_its_text_in_a_table(
    open_journal: OpenJournal, error: Exception | str
) -> None:
    journal = open_journal()
    lease = held(journal)

    lease.fail(error)

    ended = last_of(journal, LeaseEnded)
    assert ended.error_class == ("failed" if isinstance(error, str) else "OrderRefused")
    assert (ended.message, ended.message_digest) == ("", text_digest(f"cannot bill {QUOTED}"))
    assert journal.history("a-1")[-1].error_text == f"cannot bill {QUOTED}"
    assert not is_kept_for_ever(journal)


def test_a_reducer_that_raises_in_a_sweeper_leaves_no_text_in_the_log(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=ONE_TRY, reducers={"bill": refuse})
    lease = worked(held(journal, kind="bill"))

    report(journal, lease)

    quarantined = last_of(journal, Quarantined)
    assert (quarantined.explanation, quarantined.message) == ("OrderRefused", "")
    assert quarantined.message_digest == text_digest(f"cannot bill {QUOTED}")
    assert not is_kept_for_ever(journal)
    (shown,) = journal.quarantined()
    assert shown.explanation == f"OrderRefused: cannot bill {QUOTED}"


def test_a_reducer_that_raises_in_a_claimer_leaves_no_text_in_the_log(
    open_journal: OpenJournal,
) -> None:
    plain = open_journal()
    report(plain, worked(held(plain, kind="bill")))
    journal = open_journal(reducers={"bill": refuse})

    assert journal.claim(worker_id="w-2") == []

    failed = last_of(journal, StepFailed)
    assert (failed.error_class, failed.message) == ("OrderRefused", "")
    assert events_of(journal, LeaseExpired)[-1].reason.endswith("found OrderRefused")
    assert not is_kept_for_ever(journal)
    assert QUOTED in str(journal.history("a-1")[-1].error_text)


def test_a_value_that_cannot_be_stored_leaves_its_description_beside_the_log(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal()
    lease = held(journal)

    with pytest.raises(rj.InvalidInput) as refused:
        lease.record_step("bill", {QUOTED: object()})
    lease.fail(refused.value)

    assert last_of(journal, LeaseEnded).error_class == "InvalidInput"
    assert not is_kept_for_ever(journal)


def test_a_class_with_a_text_for_a_name_is_called_by_its_nearest_proper_base(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal()
    made_up = type(QUOTED, (OrderRefused,), {})
    long = type("E" * 5_000, (Exception,), {})

    held(journal, "a-1").fail(made_up("no"))
    held(journal, "a-2").fail(long("no"))

    assert last_of(journal, LeaseEnded, "a-1").error_class == "OrderRefused"
    assert last_of(journal, LeaseEnded, "a-2").error_class == "E" * 100


def test_a_text_is_shown_for_as_long_as_it_is_kept_and_then_its_digest(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal()
    lease = held(journal)
    lease.fail(OrderRefused(QUOTED))
    kept = journal.history("a-1")[-1]

    pruned = journal.prune(older_than=NOW)

    erased = journal.history("a-1")[-1]
    assert pruned.error_texts == 1
    assert f"OrderRefused: {QUOTED}" in essentials(kept.event, kept.error_text)
    said = essentials(erased.event, erased.error_text)
    assert (erased.error_text, erased.event) == (None, kept.event)
    assert "OrderRefused, its text erased, cs1:" in said
    assert rows(journal, "SELECT * FROM error_texts") == []


def test_the_text_of_a_run_that_goes_on_is_erased_by_its_age(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=ONE_TRY, reducers={"bill": refuse})
    report(journal, worked(held(journal, kind="bill")))

    kept = journal.prune(older_than=timedelta(days=1)).error_texts
    erased = journal.prune(older_than=NOW).error_texts

    (shown,) = journal.quarantined()
    assert (kept, erased) == (0, 1)
    assert shown.explanation == "OrderRefused"


def test_the_text_is_written_with_its_event_or_not_at_all(open_journal: OpenJournal) -> None:
    journal = open_journal()
    lease = held(journal)
    change(journal, "ALTER TABLE error_texts RENAME TO elsewhere")

    with pytest.raises(psycopg.errors.UndefinedTable):
        lease.fail(OrderRefused(QUOTED))

    change(journal, "ALTER TABLE elsewhere RENAME TO error_texts")
    assert events_of(journal, LeaseEnded) == []


def test_the_text_is_in_the_log_where_that_is_asked_for(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=IN_THE_LOG)

    held(journal).fail(OrderRefused(QUOTED))

    ended = last_of(journal, LeaseEnded)
    assert (ended.message, ended.message_digest) == (QUOTED, None)
    assert is_kept_for_ever(journal)
    assert rows(journal, "SELECT * FROM error_texts") == []


def test_the_reply_to_a_failure_that_was_lost_finds_it_done(open_journal: OpenJournal) -> None:
    journal = open_journal()
    make_ready(journal, "a-1")
    claim = claim_one(journal)

    claim.lease.fail(OrderRefused(QUOTED))
    claim.lease.fail(OrderRefused(QUOTED))

    assert len(events_of(journal, LeaseEnded)) == 1
    assert len(rows(journal, "SELECT * FROM error_texts")) == 1
