"""The text of an error may quote a payload, so it never enters the log unless that is wanted."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from msgspec.structs import replace

import recovery_journal as rj
from recovery_journal.cli.essentials import essentials
from recovery_journal.domain.digest import payload_digest
from recovery_journal.domain.error_texts import ErrorTexts, text_digest
from recovery_journal.domain.errors import PayloadCorrupt
from recovery_journal.domain.events import LeaseEnded, LeaseExpired, Quarantined, StepFailed
from recovery_journal.domain.policy import Policy
from recovery_journal.store.lease import Lease
from recovery_journal.values import zones
from recovery_journal.values.extensions import BY_TYPE
from recovery_journal.values.payload import BUILT_IN
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
    said_last,
    until,
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


def is_in_the_log(journal: rj.Journal, words: str = QUOTED) -> bool:
    """Whether any event says so."""
    states = rows(journal, "SELECT state FROM journal_events")
    return any(words.encode() in bytes(row["state"]) for row in states)


@pytest.mark.parametrize("error", [OrderRefused(f"cannot bill {QUOTED}"), f"cannot bill {QUOTED}"])
def test_a_failure_leaves_its_class_and_digest_in_the_log_and_its_text_in_a_table(
    open_journal: OpenJournal, error: Exception | str
) -> None:
    journal = open_journal()
    lease = held(journal)

    lease.fail(error)

    ended = last_of(journal, LeaseEnded)
    assert ended.error_class == ("failed" if isinstance(error, str) else "OrderRefused")
    assert ended.message_digest == text_digest(f"cannot bill {QUOTED}")
    assert said_last(journal) == f"cannot bill {QUOTED}"
    assert not is_kept_for_ever(journal)


def test_a_reducer_that_raises_in_a_sweeper_leaves_no_text_in_the_log(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=ONE_TRY, reducers={"bill": refuse})
    lease = worked(held(journal, kind="bill"))

    report(journal, lease)

    quarantined = last_of(journal, Quarantined)
    assert quarantined.explanation == "OrderRefused"
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
    assert failed.error_class == "OrderRefused"
    assert events_of(journal, LeaseExpired)[-1].reason.endswith("found OrderRefused")
    assert not is_kept_for_ever(journal)
    assert QUOTED in said_last(journal)


class Card:
    """A type of the user's own."""


def codec(decode: Callable[[Any], Any]) -> rj.Codec:
    return rj.Codec(name="card", type=Card, encode=lambda _card: QUOTED, decode=decode)


def refuse_to_decode(form: str) -> Card:
    raise ValueError(f"no card of {form}")


def decode_to_text(form: str) -> str:
    return form


def lack_the_key(form: str) -> Card:
    cards: dict[str, Card] = {}
    return cards[form]  # a KeyError, whose text is the key


def raise_a_made_up_class(form: str) -> Card:
    raise type(form, (ValueError,), {})(form)


DECODES = [refuse_to_decode, decode_to_text, lack_the_key, raise_a_made_up_class]


def with_a_card(journal: rj.Journal, place: str) -> Lease:
    """An attempt with such a value as its input, in its state or in its tail."""
    lease = held(journal, kind="bill", input=Card() if place == "input" else None)
    lease.record_step("first", 1)
    lease.checkpoint({"card": Card() if place == "state" else None})
    lease.record_step("bill", Card() if place == "output" else None)
    return lease


@pytest.mark.parametrize("place", ["input", "state", "output"])
@pytest.mark.parametrize("decode", DECODES)
def test_a_codec_that_fails_in_a_claimer_leaves_no_text_in_the_log(
    open_journal: OpenJournal, decode: Callable[[Any], Any], place: str
) -> None:
    sound = open_journal(codecs=[codec(lambda _form: Card())])
    report(sound, with_a_card(sound, place))
    journal = open_journal(limits=ONE_TRY, codecs=[codec(decode)])

    assert journal.claim(worker_id="w-2") == []

    quarantined = last_of(journal, Quarantined)
    assert quarantined.explanation == "CodecFailed"
    assert quarantined.message_digest is not None
    assert "decode of codec 'card' failed" in quarantined.reason
    assert not is_in_the_log(journal)
    assert "decode of codec 'card' made" in journal.quarantined()[0].explanation


@pytest.mark.parametrize("decode", DECODES)
def test_a_codec_that_fails_in_a_sweepers_reducer_leaves_no_text_in_the_log(
    open_journal: OpenJournal, decode: Callable[[Any], Any]
) -> None:
    sound = open_journal(codecs=[codec(lambda _form: Card())])
    lease = with_a_card(sound, "output")
    journal = open_journal(limits=ONE_TRY, reducers={"bill": refuse}, codecs=[codec(decode)])

    report(journal, lease)

    assert not is_in_the_log(journal)


def test_a_time_zone_that_is_not_known_here_leaves_no_text_in_the_log(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(backoff_s=0.01, backoff_limit_s=0.02, version_wait_s=0.1)
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy))
    report(journal, held(journal, input=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))))

    def no_zone(_key: str) -> ZoneInfo:
        raise LookupError

    monkeypatch.setattr(zones, "ZoneInfo", no_zone)

    def is_quarantined() -> bool:
        journal.claim(worker_id="w-2")
        journal.sweep()
        return journal.recovery("a-1").stage is rj.Stage.QUARANTINED

    until(is_quarantined, "the quarantine")
    assert not is_in_the_log(journal, "Tokyo")
    assert "Tokyo" in journal.quarantined()[0].explanation


def test_bytes_that_say_nothing_are_named_by_their_digest_and_not_by_what_they_say() -> None:
    body = msgspec.msgpack.encode(QUOTED)
    encoded = msgspec.msgpack.encode(msgspec.msgpack.Ext(BY_TYPE[UUID].code, body))

    with pytest.raises(PayloadCorrupt) as damaged:
        BUILT_IN.decode_digested(encoded, what="the input")

    assert QUOTED not in damaged.value.reason_for_log
    assert payload_digest(encoded) in damaged.value.reason_for_log


def test_a_worker_whose_function_meets_a_codec_that_fails_leaves_no_text_in_the_log(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(codecs=[codec(lack_the_key)])
    lease = held(journal)

    with pytest.raises(rj.InvalidInput) as refused:
        lease.record_step("bill", {"card": Card()})
    lease.fail(refused.value)

    assert last_of(journal, LeaseEnded).error_class == "InvalidInput"
    assert not is_kept_for_ever(journal)


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
    assert f"OrderRefused: {QUOTED}" in essentials(kept.event)
    said = essentials(erased.event)
    assert isinstance(kept.event, LeaseEnded)
    assert erased.event == replace(kept.event, message="")
    assert "OrderRefused, its text erased, cs1:" in said
    assert rows(journal, "SELECT * FROM error_texts") == []


def test_the_text_of_a_open_run_is_erased_by_its_age(open_journal: OpenJournal) -> None:
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
