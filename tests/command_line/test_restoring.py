"""`after-restore`, as a person and a failover's hook call it."""

import pytest

from recovery_journal import Journal
from tests.command_line import scenes
from tests.command_line.conftest import Command

BY = ("--by", "clerk-4", "--reason", "disk 7 is gone")

# As a restore would find it: the journal was on another timeline when it was last accepted.
COME_FROM_ANOTHER = """
INSERT INTO accepted_servers (system_identifier, timeline, accepted_by, reason)
SELECT system_identifier, timeline + 8, 'somebody', 'it was there'
FROM accepted_servers
"""


@pytest.fixture
def restored(journal: Journal, server_dsn: str) -> Journal:
    """A journal with one worker at work, which is now on another server than before."""
    scenes.held(journal, "a-1")
    scenes.execute(server_dsn, journal.database.schema, COME_FROM_ANOTHER)
    return journal


@pytest.mark.usefixtures("restored")
def test_every_other_command_stops_and_names_this_one(command: Command) -> None:
    for refused in (("ready",), ("sweep",), ("log",), ("rebuild", "--check"), ("init",)):
        said = command(*refused)

        assert said.code == 5
        assert "recovery-journal after-restore --by NAME --reason TEXT" in said.err
    assert command("sweep", "--json").error["type"] == "ServerReplaced"


@pytest.mark.usefixtures("restored")
def test_the_status_says_first_that_the_server_is_not_accepted(command: Command) -> None:
    said = command("status")

    assert said.code == 0
    heading, first = said.out.splitlines()[2:4]
    assert heading.split("  ")[0] == "delayed"
    assert first.startswith("everything: this server (system identifier ")
    assert "after-restore" in first
    assert command("status", "--json").document["delays"][0]["kind"] == "server_not_accepted"


def test_it_says_what_it_has_done_and_then_there_is_nothing_to_do(
    command: Command, restored: Journal
) -> None:
    first = command("after-restore", *BY)
    second = command("after-restore", *BY)
    status = command("status", "--json")

    assert (first.code, second.code) == (0, 0)
    assert first.out.startswith("Accepted the server with system identifier ")
    assert "Fenced 1 lease." in first.out
    assert "1 attempt: 1 ready." in first.out
    assert "Leases and log agree." in first.out
    assert second.out.startswith("Nothing to do: the server with ")
    assert [one["kind"] for one in status.document["delays"]] == []
    assert restored.recovery("a-1").stage == "ready"


def test_json_holds_the_same(command: Command, restored: Journal) -> None:
    document = command("after-restore", *BY, "--json").document

    assert document["is_done"] is True
    assert document["fenced_count"] == 1
    assert document["raised"]["epochs"]["skipped_to"] >= 1_000_000_000
    assert [one["stage"] for one in document["swept"]] == ["ready"]
    assert restored.recovery("a-1").stage == "ready"


def test_a_check_changes_nothing(command: Command, restored: Journal) -> None:
    said = command("after-restore", *BY, "--check")

    assert said.code == 0
    assert said.out.startswith("Not accepted: the server with ")
    assert restored.recovery("a-1").stage == "held"
    assert command("sweep").code == 5


def test_where_nothing_was_lost_leases_continue(command: Command, restored: Journal) -> None:
    said = command("after-restore", *BY, "--nothing-lost")

    assert said.code == 0
    assert "Fenced" not in said.out
    assert restored.recovery("a-1").stage == "held"
    assert command("sweep").code == 0


def test_a_copy_that_looks_the_same_is_taken_for_one_if_a_person_says_so(
    command: Command, journal: Journal
) -> None:
    scenes.held(journal, "a-1")

    said = command("after-restore", *BY, "--restored")

    assert "Fenced 1 lease." in said.out
    assert journal.recovery("a-1").stage == "ready"


def test_what_differs_is_shown_with_the_command_that_helps(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.held(journal, "a-1")
    schema = journal.database.schema
    scenes.execute(server_dsn, schema, "DELETE FROM leases")
    scenes.execute(server_dsn, schema, "UPDATE projection_tracking SET position = 700")

    said = command("after-restore", *BY, "--restored")

    (row,) = [line for line in said.out.splitlines() if line.startswith("a-1 ")]
    assert row.split()[-2:] == ["0", "2"]
    assert "recovery-journal rebuild dispatch_ready moments recovery_contexts workers" in said.out


@pytest.mark.parametrize(
    "arguments",
    [("--by", "clerk-4"), ("--reason", "x"), (*BY, "--nothing-lost", "--restored")],
    ids=["no reason", "no name", "both"],
)
def test_half_a_decision_is_not_understood(
    command: Command, journal: Journal, arguments: tuple[str, ...]
) -> None:
    assert command("after-restore", *arguments).code == 2
    assert journal.status().delays == []
