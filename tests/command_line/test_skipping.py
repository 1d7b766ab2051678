"""Passing over an event that is in the way, from the shell."""

import json

import pytest

from recovery_journal import Journal
from recovery_journal.cli.exits import ExitCode
from tests.command_line.conftest import Command
from tests.rules.forgeries import forge
from tests.rules.scenes import held, make_ready

PERSON = ("--by", "ann", "--reason", "a forger")


def test_a_person_finds_what_is_set_aside_and_proceeds_past_it(
    command: Command, journal: Journal
) -> None:
    make_ready(journal, "a-1")
    position = forge(journal, "a-1", "no JSON")
    assert journal.claim(worker_id="w-2") == []

    listed = command("quarantine", "list")
    status = command("status")
    skipped = command("skip", str(position), *PERSON)

    assert "set aside" in listed.out
    assert f"recovery-journal skip {position}" in " ".join(listed.out.split())
    assert "attempts that are set aside (1), as a-1" in " ".join(status.out.split())
    assert skipped.code == 0
    assert f"at position {position} from now on" in skipped.out
    assert [claim.lease.attempt_id for claim in journal.claim(worker_id="w-2")] == ["a-1"]


def test_the_log_and_the_journals_history_show_who_skipped_what(
    command: Command, journal: Journal
) -> None:
    held(journal, "a-1")
    position = forge(journal, "a-1", "no JSON")
    command("skip", str(position), *PERSON)

    logged = command("log", "--after", "0")
    history = command("history", "--journal")
    document = json.loads(command("history", "--journal", "--json").out)

    assert "the journal" in logged.out
    assert "(skipped) cannot be read" in logged.out
    for said in (logged.out, history.out):
        assert f"position {position}" in " ".join(said.split())
        assert "by ann - a forger" in " ".join(said.split())
    assert document[0]["event"]["type"] == "event-skipped"
    assert document[0]["event"]["position"] == position


def test_a_history_marks_what_is_skipped(command: Command, journal: Journal) -> None:
    held(journal, "a-1")
    position = forge(journal, "a-1", "confirmed")
    command("skip", str(position), *PERSON)

    said = command("history", "a-1")
    document = json.loads(command("history", "a-1", "--json").out)
    shown = command("show", "a-1")

    assert "(skipped)" in said.out
    assert [entry.get("is_skipped", False) for entry in document["entries"]] == [False, True]
    assert shown.code == 0


def test_what_is_still_in_the_way_is_said_with_an_exit_code(
    command: Command, journal: Journal
) -> None:
    held(journal, "a-1")
    first = forge(journal, "a-1", "completed")
    second = forge(journal, "a-1", "no JSON")

    said = command("skip", str(first), *PERSON, "--json")

    assert said.code == ExitCode.PARTLY
    assert str(second) in json.loads(said.out)["left"]


@pytest.mark.parametrize(
    "words", [("history",), ("history", "a-1", "--journal"), ("skip", "0", *PERSON)]
)
def test_contradictory_words_are_refused(
    command: Command, journal: Journal, words: tuple[str, ...]
) -> None:
    held(journal, "a-1")

    assert command(*words).code == 2


def test_an_honest_event_is_refused(command: Command, journal: Journal) -> None:
    held(journal, "a-1")

    said = command("skip", "1", *PERSON)

    assert said.code == 3
    assert "appended by the journal" in said.err


def test_the_journals_history_is_empty_at_first(command: Command, journal: Journal) -> None:
    held(journal, "a-1")

    assert "No event was skipped" in command("history", "--journal").out
    assert json.loads(command("history", "--journal", "--json").out) == []
