"""Nothing is shown of a connection string that can be read in two ways."""

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import recovery_journal as rj
from recovery_journal.cli.main import main
from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.postgres.connection_string import (
    UNNAMED,
    is_like_dsn,
    is_like_dsns_path,
    parse,
)
from recovery_journal.postgres.database import Database

WORD = "zebra42"
"""A part of the password, which must not be seen anywhere."""

SHIFTED = (
    f"postgresql://u:pa/{WORD}@127.0.0.1:1/db",
    f"postgresql://u:{WORD}/ss@127.0.0.1:1/db",
    f"postgresql://u:p@{WORD}@127.0.0.1:1/db",
    f"postgresql://u:p:{WORD}@127.0.0.1:1/db",
    f"postgresql://u:p?{WORD}@127.0.0.1:1/db",
    f"postgresql://u:p#{WORD}@127.0.0.1:1/db",
    f"postgresql://u:p%{WORD}@127.0.0.1:1/db",
    f"postgresql://u:p {WORD}@127.0.0.1:1/db",
    f"postgresql://u:p[{WORD}@127.0.0.1:1/db",
    f"postgresql://u:123/{WORD}@127.0.0.1:1/db",
    f"postgresql://u:a,b/{WORD}@127.0.0.1:1/db",
    f"postgresql://u:@{WORD}/@127.0.0.1:1/db",
    f"postgresql://u@127.0.0.1:1/db?password=a&{WORD}",
    f"postgresql://u@127.0.0.1:1/db?password=a@{WORD}",
    f"postgresql://u@127.0.0.1:1/db?sslpassword=a/b?{WORD}",
    f"postgresql://u:p/{WORD}@127.0.0.1:1,127.0.0.1:2/db",
    f"host=127.0.0.1 port=1 password=my {WORD}",
    f"host=127.0.0.1 port=1 password=my host={WORD}",
    f"host=127.0.0.1 port=1 password=a' dbname={WORD}' dbname=x",
    f"host=127.0.0.1@{WORD} port=1",
    f"u:{WORD}@127.0.0.1:1/db",
)

CERTAIN = {
    "postgresql://u:p%40s%2Fs@127.0.0.1:1/db": "127.0.0.1:1/db",
    "postgres://u:s3cret@a:1,b:2/db?target_session_attrs=any": "a,b:1,2/db",
    "postgresql://postgres@/db?host=%2Ftmp%2Fx&requirepeer=me": "/tmp/x:5432/db",  # noqa: S108 - a name
    "postgresql://[::1]:5433/db": "::1:5433/db",
    "host=h port=1 dbname=d password='two words' sslpassword=x passfile=/x/y": "h:1/d",
}


@pytest.mark.parametrize("dsn", SHIFTED)
def test_no_part_of_a_misread_password_is_in_an_error_or_its_traceback(dsn: str) -> None:
    with pytest.raises((rj.InvalidInput, ServerUnavailable)) as refused:
        rj.open(dsn)

    error: BaseException | None = refused.value
    assert WORD not in "".join(traceback.format_exception(refused.value))
    while error is not None:
        assert WORD not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("dsn", SHIFTED)
@pytest.mark.parametrize("flags", [["--json"], []])
def test_no_part_of_it_is_in_what_a_command_prints(
    dsn: str, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["--dsn", dsn, "status", *flags])

    said = "".join(capfd.readouterr())
    assert code in (3, 4)
    assert said
    assert WORD not in said


@pytest.mark.parametrize("dsn", [f"postgresql://u:{WORD}@h/db", f"host=h password={WORD}"])
@pytest.mark.parametrize("flags", [["--json"], []])
def test_a_dsn_in_the_wrong_place_is_not_repeated(
    dsn: str, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for words in ([dsn], ["status", dsn], ["prune", "--older-than", dsn]):
        assert main([*words, *flags]) == 2

    assert WORD not in "".join(capfd.readouterr())


MISTYPED = (
    f"postgresql://u:{WORD}@127.0.0.1:1/db",
    f" postgresql://u:{WORD}@127.0.0.1:1/db",
    f"Postgres://u:{WORD}@127.0.0.1:1/db",
    f"postgresql:/u:{WORD}@127.0.0.1:1/db",
    f"postgresql//u:{WORD}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:{WORD}@127.0.0.1:1/db",
    f"postgresql://127.0.0.1/db?password={WORD}",
    f"password={WORD}",
    f"user=u password={WORD}",
    f"host=h user={WORD}",
    f"dbname='my db' sslpassword = '{WORD}'",
)
ANYWHERE = (
    ("--schema", "DSN", "status"),
    ("--app", "DSN", "status"),
    ("--data", "DSN", "status"),
    ("--durability", "DSN", "status"),
    ("--data=DSN", "status"),
    ("status", "--schema=DSN"),
    ("status", "--dns", "DSN"),
    ("status", "--dns=DSN"),
    ("history", "DSN"),
    ("history", "--", "DSN"),
    ("cancel", "a-1", "--by", "DSN", "--reason", "why"),
    ("cancel", "a-1", "--by", "ann", "--reason", "DSN"),
    ("ready", "--kind", "DSN"),
    ("quarantine", "DSN"),
    ("DSN",),
)


@pytest.mark.parametrize("words", ANYWHERE, ids=" ".join)
@pytest.mark.parametrize("flags", [["--json"], []])
def test_a_dsn_is_refused_wherever_else_it_is_given_and_never_shown(
    words: tuple[str, ...],
    flags: list[str],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    for dsn in MISTYPED:
        code = main([*flags, *(word.replace("DSN", dsn) for word in words)])

        said = "".join(capfd.readouterr())
        assert (code, WORD in said, bool(said)) == (2, False, True), dsn
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dsn", [f"u:{WORD}@127.0.0.1/db", f"mysql://u:{WORD}@h/db"])
def test_what_may_be_the_end_of_a_dsn_is_not_shown(
    dsn: str, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["--dsn", "host=127.0.0.1 port=1"]

    for words in ([dsn], ["--app", dsn, "status"], ["prune", "--older-than", dsn]):
        assert main([*nowhere, *words]) in (2, 3)

    assert WORD not in "".join(capfd.readouterr())


@pytest.mark.parametrize("dsn", MISTYPED)
@pytest.mark.parametrize("variable", ["RECOVERY_JOURNAL_SCHEMA", "RECOVERY_JOURNAL_DATA"])
def test_a_dsn_in_another_variable_is_refused_and_never_shown(
    dsn: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECOVERY_JOURNAL_DSN", raising=False)
    monkeypatch.setenv(variable, dsn)
    server = "host=127.0.0.1 port=1" if variable.endswith("SCHEMA") else None

    with pytest.raises(rj.InvalidInput) as refused:
        rj.open(server)

    assert WORD not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "reason",
    ["host=w-17 is gone", "the password=… page", "postgres was away", "see https://x/y@z"],
)
def test_words_that_only_speak_of_one_are_no_dsn(reason: str) -> None:
    assert not is_like_dsn(reason)


@pytest.mark.parametrize("folder", ["postgres", "postgres/data", "./postgresql", "/srv/postgres"])
def test_a_folder_may_be_called_like_the_server(folder: str) -> None:
    assert not is_like_dsns_path(folder)


@pytest.mark.parametrize("dsn", SHIFTED)
def test_no_part_of_it_is_logged(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises((rj.InvalidInput, ServerUnavailable)):
        rj.open(dsn)

    assert WORD not in caplog.text


@pytest.mark.parametrize("dsn", SHIFTED)
def test_such_a_server_has_no_name(dsn: str) -> None:
    try:
        database = Database(dsn, "s")
    except rj.InvalidInput:
        return

    assert database.server == UNNAMED
    assert WORD not in repr(database) + repr(parse(dsn))


@pytest.mark.parametrize("dsn", CERTAIN)
def test_a_string_with_one_reading_names_its_server(dsn: str) -> None:
    assert parse(dsn).server == CERTAIN[dsn]
    assert parse(parse(dsn).text).parameters == parse(dsn).parameters


def test_the_right_password_is_not_shown_beside_its_server() -> None:
    # An argument, because from Python 3.13 on a traceback quotes the text of the program.
    program = (
        "import recovery_journal as rj, logging, sys\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "rj.open(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program, f"postgresql://u:{WORD}@127.0.0.1:1/db"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )

    assert "127.0.0.1" in done.stderr
    assert WORD not in done.stderr + done.stdout
