"""The decisions of a person; the log keeps the name and the reason."""

import json

import msgspec
import pytest

from recovery_journal import Journal, Stage
from recovery_journal.domain.events import LiftOption, QuarantineLifted
from recovery_journal.domain.recovery import Recovery
from recovery_journal.monitoring.quarantined import QuarantinedAttempt
from tests.command_line import scenes
from tests.command_line.conftest import Command

PERSON = ("--by", "ann", "--reason", "checked it")


def test_the_quarantine_list_says_why_since_when_and_what_may_be_chosen(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)

    said = command("quarantine", "list")

    assert "a-bad#1  of run run of a-bad, kind report" in said.out
    assert "corrupt" in said.out
    assert "checkpoint 1 of run 'run of a-bad' has digest" in said.out
    assert "retry or parent or restart" in said.out
    assert " UTC, for " in said.out


def test_the_quarantine_list_for_programs_is_the_journals(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)
    scenes.quarantined(journal, "a-worse", dsn=server_dsn)

    said = command("quarantine", "list", "--json")

    found = msgspec.json.decode(said.out, type=list[QuarantinedAttempt])
    assert found == journal.quarantined()
    assert [one.attempt_id for one in found] == ["a-bad", "a-worse"]
    assert found[0].options == (LiftOption.RETRY, LiftOption.PARENT, LiftOption.RESTART)


def test_a_stream_that_cannot_be_read_is_listed_with_its_error(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)
    version = journal.recovery("a-bad").version + 1
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "VALUES ('a-bad', %s, 'from-the-future', '{}')",
        version,
    )

    said = command("quarantine", "list", "--json")

    (found,) = said.document
    assert found["cause"] is None
    assert "from-the-future" in found["error"]


def test_an_empty_quarantine_is_said(command: Command, journal: Journal) -> None:
    scenes.held(journal)

    assert command("quarantine", "list").out == "No attempt is in quarantine or set aside.\n"


def test_lifting_proceeds_as_the_person_chose(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)

    said = command("quarantine", "lift", "a-bad", "--option", "restart", *PERSON)

    assert said.code == 0
    assert said.out.splitlines()[1].split() == ["a-bad#1", "run", "of", "a-bad", "ready"]
    lifted = next(
        one.event for one in journal.history("a-bad") if "lift" in str(type(one.event)).lower()
    )
    assert (lifted.recorded_by.name, lifted.reason) == ("ann", "checked it")


DAMAGES: dict[LiftOption, str] = {
    LiftOption.RETRY: "UPDATE checkpoints SET state_digest = 'cs1:0'",
    LiftOption.ACCEPT_TIP: "DELETE FROM run_steps WHERE ordinal = 2",
    LiftOption.PARENT: "UPDATE checkpoints SET state_digest = 'cs1:0'",
    LiftOption.RESTART: "UPDATE checkpoints SET state_digest = 'cs1:0'",
}
REPAIR = "UPDATE checkpoints SET state_digest = 'cs1:' || encode(sha256(state), 'hex')"


@pytest.mark.parametrize("option", LiftOption)
def test_every_option_proceeds_in_its_own_way_and_the_log_keeps_who_and_why(
    command: Command, journal: Journal, server_dsn: str, option: LiftOption
) -> None:
    scenes.held(journal)
    scenes.execute(server_dsn, journal.database.schema, DAMAGES[option])
    journal.report_lost(worker_id="w-1", reason="gone")
    if option is LiftOption.RETRY:
        scenes.execute(server_dsn, journal.database.schema, REPAIR)

    said = command("quarantine", "lift", "a-1", "--option", option.value, *PERSON, "--json")

    assert (said.code, said.document["stage"]) == (0, "ready")
    (lifted,) = [
        entry.event for entry in journal.history("a-1") if isinstance(entry.event, QuarantineLifted)
    ]
    assert lifted.option is option
    assert (lifted.recorded_by.role, lifted.recorded_by.name) == ("person", "ann")
    assert lifted.reason == "checked it"
    (claim,) = journal.claim(worker_id="w-2")
    found = (claim.state, [step.ordinal for step in claim.tail])
    assert (
        found
        == {
            LiftOption.RETRY: ({"rows": 3}, [2]),
            LiftOption.ACCEPT_TIP: ({"rows": 3}, []),
            LiftOption.PARENT: (None, [1, 2]),
            LiftOption.RESTART: (None, []),
        }[option]
    )
    shown = command("history", "a-1")
    assert f"option {option.value}" in shown.out
    assert "by ann - checked it" in shown.out


def test_resuming_makes_a_waiting_attempt_ready(command: Command, journal: Journal) -> None:
    scenes.waiting(journal, "a-wait")

    said = command("resume", "a-wait", *PERSON, "--json")

    assert said.code == 0
    assert said.document["stage"] == "ready"
    assert journal.recovery("a-wait").stage is Stage.READY


def test_cancelling_ends_an_attempt_and_refuses_its_worker(
    command: Command, journal: Journal
) -> None:
    lease = scenes.held(journal)

    said = command("cancel", "a-1", *PERSON, "--json")

    assert said.code == 0
    assert msgspec.convert(said.document, Recovery).stage is Stage.ENDED
    scenes.refused(lease)


@pytest.mark.parametrize(
    "words",
    [
        ("resume", "a-1"),
        ("cancel", "a-1"),
        ("quarantine", "lift", "a-1", "--option", "retry"),
    ],
)
@pytest.mark.parametrize(
    ("given", "missing"), [(("--by", "ann"), "--reason"), (("--reason", "why"), "--by")]
)
def test_a_persons_act_needs_a_name_and_a_reason(
    command: Command, journal: Journal, words: tuple[str, ...], given: tuple[str, ...], missing: str
) -> None:
    scenes.held(journal)

    said = command(*words, *given)

    assert said.code == 2
    assert missing in said.err
    assert journal.recovery("a-1").stage is Stage.HELD


def test_a_reason_of_blanks_is_none(command: Command, journal: Journal) -> None:
    scenes.held(journal)

    said = command("cancel", "a-1", "--by", "ann", "--reason", "  ", "--json")

    assert (said.code, said.error["type"]) == (3, "InvalidInput")
    assert json.loads(said.err)["error"]["exit_code"] == 3
    assert journal.recovery("a-1").stage is Stage.HELD


def test_a_decision_at_the_wrong_stage_is_refused(command: Command, journal: Journal) -> None:
    scenes.held(journal)

    said = command("resume", "a-1", *PERSON)

    assert said.code == 3
    assert "found stage held, needed waiting" in said.err
    assert "Traceback" not in said.err


def test_an_option_that_the_quarantine_does_not_name_is_refused(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)

    said = command("quarantine", "lift", "a-bad", "--option", "accept_tip", *PERSON)

    assert said.code == 3
    assert "retry or parent or restart" in said.err
