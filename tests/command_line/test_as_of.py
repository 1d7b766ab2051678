"""The commands that show the past."""

import re
from datetime import UTC, timedelta

import msgspec
import pytest

from recovery_journal import Journal
from recovery_journal.domain.recovery import Recovery
from recovery_journal.projections.dispatch_ready import DispatchReadyRow
from tests.command_line import scenes
from tests.command_line.conftest import Command


@pytest.fixture
def taken_over(journal: Journal) -> int:
    """One attempt was recovered and claimed since; the position at which it was on the list."""
    scenes.recovered(journal, "a-1")
    journal.claim(worker_id="w-2")
    return 6


def test_ready_shows_what_the_list_held_and_the_position_that_was_meant(
    command: Command, journal: Journal, taken_over: int
) -> None:
    at = journal.history("a-1")[taken_over - 1].recorded_at

    said = command("ready", "--at", str(taken_over))

    first, _, row = said.out.splitlines()[:3]
    assert re.fullmatch(rf"As of position 6 \({at:%Y-%m-%d} [\d:.]{{12}} UTC\)", first)
    assert re.match(r"1 +a-1#1 +run of a-1 +report +acme +5 +[<\d]", row)
    assert "1 attempt with effects in doubt" in said.out
    assert command("ready").out == "No attempt waits for a worker.\n"


def test_a_time_may_be_typed_with_an_offset_in_utc_or_as_an_age(
    command: Command, journal: Journal, taken_over: int
) -> None:
    at = journal.history("a-1")[taken_over - 1].recorded_at
    elsewhere = at.astimezone(UTC) + timedelta(hours=3)
    typed = [
        at.isoformat(),
        at.astimezone(UTC).isoformat().removesuffix("+00:00"),
        elsewhere.isoformat().replace("+00:00", "+03:00"),
    ]

    found = [command("ready", "--at", text, "--json").document for text in typed]

    assert [one["at"]["position"] for one in found] == [taken_over] * 3
    assert [len(one["rows"]) for one in found] == [1, 1, 1]
    assert command("ready", "--at", "2h", "--json").document["at"]["position"] == 0
    assert command("ready", "--at", "0s", "--json").document["at"]["position"] == 7


def test_ready_of_then_for_programs_is_the_list_of_then(
    command: Command, journal: Journal, taken_over: int
) -> None:
    document = command("ready", "--at", str(taken_over), "--json", "--tenant", "acme").document

    rows = msgspec.convert(document["rows"], list[DispatchReadyRow])
    assert rows == journal.dispatch_ready(at=taken_over)


def test_ready_says_that_no_attempt_waited(command: Command, taken_over: int) -> None:
    said = command("ready", "--at", "0")

    assert said.out == (
        "As of position 0 (before the first event)\nNo attempt waited for a worker.\n"
    )
    assert command("ready", "--at", str(taken_over), "--kind", "another").code == 0


def test_show_shows_an_attempt_as_of_a_position_or_a_time(
    command: Command, journal: Journal, taken_over: int
) -> None:
    at = journal.history("a-1")[3].recorded_at

    by_position = command("show", "a-1", "--at", "4")
    by_time = command("show", "a-1#1", "--at", at.isoformat(), "--json").document

    assert re.search(r"^As of version 4, at position 4 \(.* UTC\)$", by_position.out, re.MULTILINE)
    assert re.search(r"^stage +reloaded$", by_position.out, re.MULTILINE)
    assert by_time["at"]["position"] == by_time["version"] == 4
    assert msgspec.convert(by_time["recovery"], Recovery) == journal.recovery("a-1", at=4)
    assert taken_over


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("ready", "--at", "8"), 3, "found 8, needed at most 7, the last one in the log"),
        (("ready", "--at", "yesterday"), 2, "'yesterday' is no position and no time"),
        (("ready", "--at", "9999999d"), 2, "'9999999d' is no position and no time"),
        (("ready", "--at", "2026-02-30"), 2, "'2026-02-30' is no position and no time"),
        (("show", "a-1", "--at", "0"), 3, "found 0, where it had no event yet"),
        (("show", "a-1", "--at", "1h"), 3, "needed 1, that of its first event, or a higher one"),
        (("show", "a-1#1", "--at", "2"), 3, "--at: found 2, needed one of its 7 events"),
        (("show", "a-1", "--at", "2", "--version", "1"), 2, "--version and --at name two moments"),
    ],
)
@pytest.mark.usefixtures("taken_over")
def test_a_moment_that_cannot_be_shown_is_refused(
    command: Command, words: tuple[str, ...], code: int, message: str
) -> None:
    said = command(*words, "--json")

    assert (said.code, said.out) == (code, "")
    assert message in said.error["message"]
