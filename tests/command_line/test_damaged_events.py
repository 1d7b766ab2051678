"""The events before a damaged one are shown, then the obstacle and the remedy."""

from typing import Any

import pytest

from recovery_journal import Journal
from recovery_journal.cli.exits import ExitCode
from recovery_journal.domain.errors import InvalidInput, StreamUnusable
from tests.command_line.conftest import Command, Said
from tests.rules.forgeries import forge
from tests.rules.scenes import held, report, worked

SOUND = ["lease-granted", "confirmed"]

every_kind = pytest.mark.parametrize(
    "kind", ["no JSON", "nothing", "an unknown tag", "another stream", "ready before year 1"]
)
both = pytest.mark.parametrize("name", ["history", "show"])


def damage(journal: Journal, kind: str = "no JSON") -> int:
    """Let version 3 of attempt a-1 be one that cannot be read, with others behind it; its
    position."""
    worked(held(journal, "a-1"))
    position = forge(journal, "a-1", kind)
    forge(journal, "a-1", "cancelled")
    held(journal, "a-2")
    return position


def require_obstacle(said: Said, position: int) -> None:
    """The command stopped there, and says what helps."""
    assert said.code == ExitCode.STOP
    message = " ".join(said.err.split())
    assert f"at position {position}" in message
    assert f"recovery-journal skip {position} --by NAME --reason TEXT" in message


def tags(entries: list[Any]) -> list[str]:
    return [entry["event"]["type"] for entry in entries]


@every_kind
@both
def test_an_attempt_is_shown_up_to_the_event_that_cannot_be_read(
    command: Command, journal: Journal, kind: str, name: str
) -> None:
    position = damage(journal, kind)

    said = command(name, "a-1")

    require_obstacle(said, position)
    assert "lease granted" in said.out
    assert "confirmed" in said.out
    assert "lease ended" not in said.out
    last = said.out.splitlines()[-1]
    assert last == "From version 3 on nothing is shown: it cannot be read."


@every_kind
def test_for_programs_it_is_one_document_and_then_the_error(
    command: Command, journal: Journal, kind: str
) -> None:
    position = damage(journal, kind)

    history = command("history", "a-1", "--json")
    shown = command("show", "a-1", "--json")

    for said in (history, shown):
        require_obstacle(said, position)
        assert said.error["exit_code"] == ExitCode.STOP
    assert tags(history.document["entries"]) == SOUND
    assert tags([one["entry"] for one in shown.document["entries"]]) == SOUND
    assert shown.document["version"] == 2


@pytest.mark.parametrize("version", [1, 2])
def test_what_lies_before_the_damage_is_shown_whole(
    command: Command, journal: Journal, version: int
) -> None:
    damage(journal)
    at = journal.history("a-1", version=version)[-1].position

    for moment in (("--version", version), ("--at", at)):
        said = command("show", "a-1", "--json", *map(str, moment))

        assert (said.code, said.err) == (0, "")
        assert said.document["version"] == version


@pytest.mark.parametrize("version", [3, 4, 9])
def test_what_lies_behind_the_damage_is_shown_as_far_as_it_can_be(
    command: Command, journal: Journal, version: int
) -> None:
    position = damage(journal)

    said = command("show", "a-1", "--json", "--version", str(version))

    require_obstacle(said, position)
    assert said.document["version"] == 2


def test_a_moment_behind_the_damage_is_shown_as_far_as_it_can_be(
    command: Command, journal: Journal
) -> None:
    position = damage(journal)

    said = command("show", "a-1", "--json", "--at", str(position))

    require_obstacle(said, position)
    assert said.document["version"] == 2
    assert said.document["at"]["position"] == position


@both
def test_one_recovery_is_shown_up_to_the_damage_and_one_behind_it_is_not_there(
    command: Command, journal: Journal, name: str
) -> None:
    report(journal, worked(held(journal, "a-1")))
    position = forge(journal, "a-1", "no JSON")

    first, second = (command(name, recovery) for recovery in ("a-1#1", "a-1#2"))

    require_obstacle(first, position)
    assert "checkpoint reloaded" in first.out
    require_obstacle(second, position)
    assert second.out == ""


@both
def test_where_the_first_event_is_damaged_there_is_nothing_but_the_error(
    command: Command, journal: Journal, name: str
) -> None:
    position = forge(journal, "no-one's", "no JSON")

    said = command(name, "no-one's")

    require_obstacle(said, position)
    assert said.out == ""


@both
def test_what_is_skipped_is_in_nobodys_way(command: Command, journal: Journal, name: str) -> None:
    position = damage(journal)
    journal.skip(position, by="ann", reason="a forger")
    journal.skip(position + 1, by="ann", reason="a forger")

    said = command(name, "a-1")

    assert (said.code, said.err) == (0, "")


@every_kind
@pytest.mark.parametrize("options", [(), ("--limit", "3"), ("--limit", "40"), ("--after", "0")])
def test_the_log_is_shown_up_to_the_event_that_cannot_be_read(
    command: Command, journal: Journal, kind: str, options: tuple[str, ...]
) -> None:
    position = damage(journal, kind)

    said = command("log", *options)
    listed = command("log", "--json", *options)

    require_obstacle(said, position)
    assert [line.split()[0] for line in said.out.splitlines()] == ["1", "2"]
    require_obstacle(listed, position)
    assert tags(listed.documents) == SOUND


@pytest.mark.parametrize("count", [1, 2])
def test_damage_behind_which_the_newest_events_lie_is_not_in_their_way(
    command: Command, journal: Journal, count: int
) -> None:
    damage(journal)

    said = command("log", "--json", "--limit", str(count))

    assert (said.code, said.err) == (0, "")
    assert tags(said.documents) == ["lease-ended", "lease-granted"][-count:]


def test_the_newest_events_before_the_damage_are_those_next_to_it(
    command: Command, journal: Journal
) -> None:
    for number in range(30):
        held(journal, f"b-{number}")
    position = forge(journal, "b-29", "no JSON")

    said = command("log", "--json")

    require_obstacle(said, position)
    assert [one["position"] for one in said.documents] == list(range(position - 20, position))


def test_a_history_up_to_a_version_needs_nothing_of_what_comes_later(journal: Journal) -> None:
    position = damage(journal)

    with pytest.raises(StreamUnusable) as raised:
        journal.history("a-1")

    assert (raised.value.position, raised.value.version) == (position, 3)
    assert [it.event.originator_version for it in journal.history("a-1", version=2)] == [1, 2]
    with pytest.raises(InvalidInput, match="at most 4, its last"):
        journal.history("a-1", version=5)
    with pytest.raises(InvalidInput):
        journal.history("a-1", version=0)
