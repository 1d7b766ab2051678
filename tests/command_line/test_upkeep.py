"""Rebuilding, checking and pruning from the command line."""

import msgspec

from recovery_journal import Journal
from recovery_journal.rebuilding.check import CheckedProjection
from recovery_journal.rebuilding.rebuild import RebuildReport
from tests.command_line import scenes
from tests.command_line.conftest import Command

ROW_LOST = "DELETE FROM projection_dispatch_ready"


def test_a_rebuild_mends_the_rows_and_tells_how_far_it_is(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.recovered(journal)
    scenes.execute(server_dsn, journal.database.schema, ROW_LOST)

    said = command("rebuild")

    assert said.code == 0
    assert "dispatch_ready        1         6  rows1:" in said.out
    assert "Rebuilt from 6 events in " in said.out
    assert "folding: 6 of " in said.err
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


def test_a_check_of_right_rows_changes_nothing_and_is_well(
    command: Command, journal: Journal
) -> None:
    scenes.recovered(journal)
    journal.rebuild()

    said = command("rebuild", "--check")

    assert said.code == 0
    assert said.out.endswith("The rows are what the log says.\n")


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
    assert "priority  stored 9, the log says 5" in for_people.out
    checked = msgspec.json.decode(for_programs.out, type=list[CheckedProjection])
    assert [one.difference_count for one in checked] == [1, 0, 0, 0]
    assert journal.dispatch_ready()[0].priority == 9


def test_pruning_says_what_it_forgot(command: Command, journal: Journal) -> None:
    scenes.held(journal).complete("done")

    kept = command("prune", "--older-than", "30d")
    pruned = command("prune", "--older-than", "0s")
    again = command("prune", "--older-than", "0s", "--json")

    assert kept.out.startswith("Pruned 0 runs: ")
    assert pruned.out == ("Pruned 1 run: 2 run steps, 1 checkpoint, 0 announcements, 1 result.\n")
    assert set(again.document.values()) == {0}
