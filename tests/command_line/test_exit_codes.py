"""Every mistake gets its exit code and one message, and never a traceback."""

import pytest

from recovery_journal import Journal
from recovery_journal.cli.exits import ExitCode, code_of, report
from recovery_journal.cli.main import main
from recovery_journal.domain.errors import CorruptEvent, InvalidInput, LeaseLost, StoreBusy
from tests.command_line import scenes
from tests.command_line.conftest import Command

UNREACHABLE = "postgresql://127.0.0.1:1/nowhere"
EVERY_READING_COMMAND = [
    ("status",),
    ("ready",),
    ("history", "a-1"),
    ("show", "a-1"),
    ("log",),
    ("quarantine", "list"),
    ("rebuild", "--check"),
]


def assert_refused(command: Command, words: tuple[str, ...], code: int, error: str) -> str:
    """In both forms: a line for people, an object for programs, nothing on standard output."""
    for_people = command(*words)
    for_programs = command(*words, "--json")
    assert (for_people.code, for_programs.code) == (code, code)
    assert (for_people.out, for_programs.out) == ("", "")
    assert "Traceback" not in for_people.err
    assert for_people.err.startswith("recovery-journal: cannot ")
    assert for_programs.error["type"] == error
    assert for_programs.error["exit_code"] == code
    assert for_programs.error["message"] in for_people.err
    return for_people.err


@pytest.mark.parametrize(
    "words",
    [
        ("history", "unknown"),
        ("show", "unknown#3"),
        ("cancel", "unknown", "--by", "ann", "--reason", "why"),
        ("resume", "unknown", "--by", "ann", "--reason", "why"),
        ("quarantine", "lift", "unknown", "--option", "retry", "--by", "ann", "--reason", "why"),
    ],
)
def test_an_unknown_attempt_is_refused(
    command: Command, journal: Journal, words: tuple[str, ...]
) -> None:
    scenes.held(journal)

    assert_refused(command, words, 3, "UnknownAttempt")


@pytest.mark.parametrize("words", EVERY_READING_COMMAND)
def test_a_schema_without_a_journal_is_refused_and_not_made(
    command: Command, words: tuple[str, ...]
) -> None:
    message = assert_refused(command, words, 3, "SchemaMissing")

    assert "recovery-journal init" in message
    assert command("status").code == 3


@pytest.mark.parametrize("words", EVERY_READING_COMMAND)
def test_a_schema_of_a_newer_program_is_refused(
    command: Command, journal: Journal, server_dsn: str, words: tuple[str, ...]
) -> None:
    schema = journal.database.schema
    scenes.execute(server_dsn, schema, "UPDATE journal_schema SET version = version + 1")

    assert "upgrade recovery-journal" in assert_refused(command, words, 3, "SchemaTooNew")


@pytest.mark.parametrize("words", [*EVERY_READING_COMMAND, ("run",), ("sweep",), ("init",)])
def test_an_unreachable_server_is_to_be_tried_again(
    bare_command: Command, words: tuple[str, ...]
) -> None:
    def command(*words: str) -> object:
        return bare_command(*words, "--dsn", UNREACHABLE)

    assert_refused(command, words, 4, "ServerUnavailable")  # type: ignore[arg-type]  # same answer


def test_a_dsn_that_is_none_is_refused_without_repeating_it(bare_command: Command) -> None:
    said = bare_command("status", "--dsn", "postgresql://me:secret@[")

    assert said.code == 3
    assert "secret" not in said.err


@pytest.mark.parametrize(
    "words", [("log", "--after", "0"), ("history", "a-new"), ("show", "a-new"), ("rebuild",)]
)
def test_an_event_of_an_unknown_kind_stops_a_reader_with_its_position(
    command: Command, journal: Journal, server_dsn: str, words: tuple[str, ...]
) -> None:
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "VALUES ('a-new', 1, 'from-the-future', '{}')",
    )

    said = command(*words, "--json")

    assert (said.code, said.error["type"]) == (5, "UnknownEvent")
    assert "at position 1: found event 'from-the-future'" in said.error["message"]


def test_the_log_shows_what_comes_before_an_event_that_it_cannot_read(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.held(journal)
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "VALUES ('a-new', 1, 'from-the-future', '{}')",
    )

    said = command("log", "--after", "0", "--json")

    assert [one["event"]["type"] for one in said.documents] == ["lease-granted", "confirmed"]
    assert said.code == 5


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("status", "--frobnicate"),
        ("history",),
        ("log", "--after", "-1"),
        ("show", "a-1", "--version", "0"),
        ("prune",),
        ("prune", "--older-than", "soon"),
        ("report-lost", "w-1"),
        ("quarantine", "lift", "a-1", "--option", "hope", "--by", "ann", "--reason", "why"),
        ("status", "--data", "here"),
        ("status", "--app", "no colon"),
    ],
)
def test_a_command_line_that_is_not_understood_is_said_to_be_so(
    command: Command, words: tuple[str, ...]
) -> None:
    for_people = command(*words)
    for_programs = command(*words, "--json")

    assert (for_people.code, for_programs.code) == (2, 2)
    assert for_people.err.startswith("recovery-journal: ")
    assert "Traceback" not in for_people.err
    assert for_programs.error["exit_code"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("ready", "--limit", "10001"),
        ("history", "x" * 201),
        ("history", ""),
        ("prune", "--older-than", "99999d"),
        ("show", "a-1", "--version", "9"),
        ("show", "a-1", "--recovery", "1"),
        ("report-lost", "w-unknown", "--reason", "gone"),
        ("report-lost", "w-1", "--reason", ""),
    ],
)
def test_a_value_beyond_its_limits_is_refused(
    command: Command, journal: Journal, words: tuple[str, ...]
) -> None:
    scenes.held(journal)

    assert_refused(command, words, 3, "InvalidInput")


def test_every_reaction_has_its_code() -> None:
    assert code_of(InvalidInput("x", found="a", needed="b", do="c")) is ExitCode.REFUSED
    assert code_of(LeaseLost("a", operation="b", epoch=1, found="c")) is ExitCode.REFUSED
    assert code_of(StoreBusy("a", limit="b")) is ExitCode.RETRY
    damaged = CorruptEvent("a", version=1, tag="b", position=1, reason="c")
    assert code_of(damaged) is ExitCode.STOP
    assert code_of(KeyboardInterrupt()) is ExitCode.INTERRUPTED


def test_an_unforeseen_error_is_shown_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = report(ZeroDivisionError("division by zero"), as_json=False)

    assert code is ExitCode.UNEXPECTED
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_the_help_names_every_exit_code(bare_command: Command) -> None:
    said = bare_command("--help")

    assert said.code == 0
    for code in ExitCode:
        assert f"{code.value:>5}  {code.meaning}" in said.out


def test_called_without_a_command_it_shows_its_help(bare_command: Command) -> None:
    said = bare_command()

    assert said.code == 2
    assert "quarantine" in said.out + said.err
    assert "NoArgs" not in said.out + said.err


def test_the_version_is_the_programs(bare_command: Command) -> None:
    assert bare_command("--version").out.startswith("recovery-journal/")


def test_the_global_options_may_stand_after_the_command(
    journal: Journal, server_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = journal.database.schema
    scenes.held(journal, "--dsn")

    after = main(["history", "--json", f"--schema={schema}", "--dsn", server_dsn, "--", "--dsn"])

    assert after == 0
    assert '"attempt_id": "--dsn"' in capsys.readouterr().out
