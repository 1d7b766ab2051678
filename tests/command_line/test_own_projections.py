"""A user's own projections on the command line, and how it reports outdated rows."""

import pytest

from recovery_journal import Journal
from tests.command_line import scenes
from tests.command_line.conftest import Command

OWN = "tests.journal.projections_of_ones_own"


@pytest.mark.parametrize("attribute", ["APP", "app"])
def test_an_app_may_bring_projections_that_are_rebuilt_and_checked_with_the_others(
    command: Command, journal: Journal, attribute: str
) -> None:
    scenes.recovered(journal)
    app = ("--app", f"{OWN}:{attribute}")

    before = command("rebuild", "--check", "--json", *app)
    rebuilt = command("rebuild", "--json", *app)
    after = command("rebuild", "--check", "--json", *app)

    assert (before.code, rebuilt.code, after.code) == (0, 0, 0)
    counts = {one["projection"]: one["row_count"] for one in after.document}
    assert (counts["tenants"], counts["step_counts"]) == (1, 1)
    assert {"tenants", "step_counts"} <= {
        one["projection"] for one in rebuilt.document["projections"]
    }


@pytest.mark.usefixtures("journal")
def test_the_status_shows_whose_the_rows_are(command: Command) -> None:
    command("status", "--app", f"{OWN}:APP_OF_OLD")

    ours = command("status", "--app", f"{OWN}:APP")
    without = command("status")
    for_programs = command("status", "--json", "--app", f"{OWN}:APP").document

    assert "outdated: run `recovery-journal rebuild tenants`" in ours.out
    assert "not of this program" in without.out
    states = {one["name"]: one["state"] for one in for_programs["projections"]}
    assert (states["tenants"], states["step_counts"]) == ("outdated", "following")
    assert all(one["fold_hash"].startswith("fold1:") for one in for_programs["projections"])


@pytest.mark.usefixtures("journal")
def test_outdated_rows_are_reported_in_one_line_to_people_and_not_among_json(
    command: Command,
) -> None:
    command("ready", "--app", f"{OWN}:APP_OF_OLD")

    for_people = command("ready", "--app", f"{OWN}:APP")
    for_programs = command("ready", "--json", "--app", f"{OWN}:APP")
    of_others = command("ready")

    (line,) = for_people.err.splitlines()
    assert line.startswith("recovery-journal: the rows of projection 'tenants' were made by ")
    assert line.endswith("run `recovery-journal rebuild tenants`")
    assert for_people.out == of_others.out == "No attempt waits for a worker.\n"
    assert (for_programs.err, of_others.err) == ("", "")
