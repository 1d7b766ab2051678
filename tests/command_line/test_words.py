"""Numbers, times and events as a person reads them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer
from hypothesis import given
from msgspec.structs import replace

from recovery_journal.cli import words
from recovery_journal.cli.changes import changes, fields, shown
from recovery_journal.cli.essentials import essentials
from recovery_journal.domain.events import AnyEvent, LeaseExpired
from recovery_journal.domain.lease import Actor
from recovery_journal.domain.recovery import evolve
from recovery_journal.projections.corpus import corpus
from tests.domain import histories
from tests.domain.any_event import events


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0004, "< 1 ms"),
        (0.0126, "13 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (4.2, "4.2 s"),
        (30, "30 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (86_399.7, "1 d 0 h"),
        (187_200, "2 d 4 h"),
        (-4.2, "-4.2 s"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("typed", "age"),
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("90min", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("1.5 s", timedelta(seconds=1.5)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_an_age_is_a_number_and_a_unit(typed: str, age: timedelta) -> None:
    assert words.age(typed) == age


@pytest.mark.parametrize("typed", ["", "30", "d", "-1d", "1y", "1d2h", "1" * 400 + "d"])
def test_what_is_no_age_is_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        words.age(typed)


def test_times_are_in_utc() -> None:
    at = datetime(2026, 3, 1, 1, 30, 0, 120_999, tzinfo=timezone(timedelta(hours=2)))

    assert words.moment(at) == "2026-02-28 23:30:00.120"
    assert words.moment(at.astimezone(UTC)) == words.moment(at)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "1-01-01 00:00:00.000"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))), "9999-12-31 23:59:59.999"),
    ],
)
def test_a_time_that_utc_has_no_more_is_shown_as_it_stands(at: datetime, said: str) -> None:
    assert words.moment(at).endswith(said)


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("ä 日本 🙂", "ä 日本 🙂"),
        ("\x1b[2J\n\x9b", "\\x1b[2J\\n\\x9b"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_text_cannot_command_a_terminal(text: str, shown_as: str) -> None:
    assert words.plain(text) == shown_as


def test_a_recovery_is_named_by_its_attempt_and_number() -> None:
    assert words.recovery_name("a-42", 2) == "a-42#2"
    assert words.recovery_name("a-42", 0) == "a-42"


@given(events())
def test_every_event_is_shown_in_one_printable_line(event: AnyEvent) -> None:
    said = essentials(event)

    assert said
    assert said.isprintable()


def test_the_end_of_a_session_is_shown_with_its_grace() -> None:
    lost = [record.event for record in corpus() if isinstance(record.event, LeaseExpired)]

    for event in lost:
        assert ("session lock gone for" in essentials(event)) == (event.session is not None)
        assert ("(grace 750 ms)" in essentials(event)) == (event.session is not None)


@given(events())
def test_a_person_who_decided_is_named_and_the_reason_shown(event: AnyEvent) -> None:
    by = Actor(role="person", host="h", pid=1, program="p", name="ann")

    said = essentials(replace(event, recorded_by=by, reason="checked it"))

    assert "by ann" in said
    assert said.endswith(" - checked it")


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "none"), (True, "yes"), ((1, 2), "1, 2"), ([], "none"), ([[1, "a"]], "1, a"), (7, "7")],
)
def test_a_field_is_shown_in_words(value: object, said: str) -> None:
    assert shown(value) == said


@given(events())
def test_what_an_event_changed_is_what_differs_before_and_after(event: AnyEvent) -> None:
    before = histories.given(histories.granted())
    after = evolve(before, event)

    changed = {change.field: change.after for change in changes(before, after)}

    flat = fields(before) | changed
    for name in ("version", "attempt_id"):
        flat[name] = fields(after)[name]
    assert {name: value for name, value in flat.items() if value is not None} == {
        name: value for name, value in fields(after).items() if value is not None
    }
