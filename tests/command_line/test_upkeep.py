"""Rebuilding, checking and pruning from the command line."""

import re

import msgspec
import pytest

from recovery_journal import Journal
from recovery_journal.read_models.rebuild.check import CheckedProjection
from recovery_journal.read_models.rebuild.progress import RebuildReport
from tests.command_line import scenes
from tests.command_line.conftest import Command

ROW_LOST = "DELETE FROM projection_dispatch_ready"


def test_a_rebuild_repairs_the_rows_and_shows_how_far_it_is(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    scenes.execute(server_dsn, journal.database.schema, ROW_LOST)

    said = command("rebuild")

    assert said.code == 0
    assert re.search(r"^dispatch_ready +1 +6 +\d+ ms$", said.out, re.MULTILINE)
    assert "Rebuilt from 6 events in " in said.out
    assert re.search(r"^folding: 6 of 6 events, [\d,]+/s, 0 ms left$", said.err, re.MULTILINE)
    assert said.err.endswith("done\n")
    assert [row.attempt_id for row in journal.dispatch_ready()] == ["a-1"]


def test_a_rebuild_for_programs_says_nothing_but_its_report(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)

    said = command("rebuild", "--json")

    report = msgspec.json.decode(said.out, type=RebuildReport)
    assert [one.projection for one in report.projections] == [
        "dispatch_ready",
        "recovery_contexts",
        "workers",
        "moments",
    ]
    assert said.err == ""


def test_a_rebuild_of_some_leaves_the_rows_of_the_others_alone(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    scenes.execute(server_dsn, journal.database.schema, ROW_LOST)

    others = command("rebuild", "workers", "moments", "--processes", "1", "--json")
    unknown = command("rebuild", "unknown", "--json")

    assert [one["projection"] for one in others.document["projections"]] == ["workers", "moments"]
    assert others.document["process_count"] == 1
    assert journal.dispatch_ready() == []
    assert (unknown.code, unknown.error["type"]) == (3, "InvalidInput")


def test_a_start_that_resumes_says_how_much_is_missing(
    command: Command, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes.recovered(journal)
    break_off(journal, monkeypatch)

    said = command("rebuild")

    assert said.code == 0
    assert said.err.startswith(
        "resuming a rebuild that was interrupted: 6 of 6 events are folded, 0 are missing\n"
    )


def break_off(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recovery_journal.read_models.rebuild.rebuild.index_shadows", die)
        with pytest.raises(KeyboardInterrupt):
            journal.rebuild()


def test_a_check_reports_a_row_that_is_not_there(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    journal.rebuild()
    scenes.execute(server_dsn, journal.database.schema, ROW_LOST)

    said = command("rebuild", "dispatch_ready", "--check")

    assert said.code == 6
    assert re.search(r'^  attempt_id +no row +"a-1"$', said.out, re.MULTILINE)
    assert "checking dispatch_ready: 6 of 6 events" in said.err


def test_a_check_of_right_rows_changes_nothing_and_is_well(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)
    journal.rebuild()

    said = command("rebuild", "--check")

    assert said.code == 0
    assert said.out.endswith("The rows match the log.\n")


def test_a_check_that_finds_differences_has_a_code_of_its_own(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    journal.rebuild()
    scenes.execute(
        server_dsn, journal.database.schema, "UPDATE projection_dispatch_ready SET priority = 9"
    )

    for_people = command("rebuild", "--check")
    for_programs = command("rebuild", "--check", "--json")

    assert (for_people.code, for_programs.code) == (6, 6)
    assert "dispatch_ready a-1, 6\n" in for_people.out
    assert re.search(r"^  priority +9 +5$", for_people.out, re.MULTILINE)
    assert re.search(r"^  attempt_id +\"a-1\" +\"a-1\"$", for_people.out, re.MULTILINE)
    checked = msgspec.json.decode(for_programs.out, type=list[CheckedProjection])
    assert [one.difference_count for one in checked] == [1, 0, 0, 0]
    assert journal.dispatch_ready()[0].priority == 9


def test_pruning_says_what_it_forgot(command: Command, journal: Journal) -> None:
    scenes.held(journal).complete("done")

    kept = command("prune", "--older-than", "30d")
    pruned = command("prune", "--older-than", "0s")
    again = command("prune", "--older-than", "0s", "--json")

    assert kept.out.startswith("Pruned 0 runs: ")
    assert pruned.out == (
        "Pruned 1 run: 2 run steps, 1 checkpoint, 0 announcements, 1 result, 0 error texts; "
        "of open runs, 0 superseded checkpoints.\n"
    )
    assert set(again.document.values()) == {0}
