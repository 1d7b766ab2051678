"""The characters that reach a terminal."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, text

from recovery_journal import Journal
from recovery_journal.cli.page import json_text
from tests.command_line import scenes
from tests.command_line.processes import Spoken

ESCAPE = "\x1b["


def shown_on_a_terminal(*arguments: str, **environment: str) -> str:
    """Everything that the command writes to a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    clean = {name: text for name, text in Spoken.environment().items() if name not in UNSET}
    with subprocess.Popen(
        [sys.executable, "-m", "recovery_journal.cli.main", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm", "COLUMNS": "60", **environment},
    ):
        os.close(theirs)
        written = b""
        while piece := read(ours):
            written += piece
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def without_styles(shown: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", shown)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the other side has closed
        return b""


UNSET = {"NO_COLOR", "FORCE_COLOR", "CI", "LINES"}


@pytest.mark.parametrize("words", [("status",), ("history", "a-1"), ("log",)])
def test_colours_are_for_terminals_that_want_them(
    journal: Journal, server_dsn: str, schema: str, words: tuple[str, ...]
) -> None:
    scenes.recovered(journal)
    where = ("--dsn", server_dsn, "--schema", schema)

    wanted = shown_on_a_terminal(*words, *where)
    unwanted = shown_on_a_terminal(*words, *where, NO_COLOR="1")

    assert f"{ESCAPE}36m" in wanted
    assert f"{ESCAPE}36m" not in unwanted
    assert "ready" in unwanted


def test_a_long_id_continues_in_the_next_line_and_is_not_cut(
    journal: Journal, server_dsn: str, schema: str
) -> None:
    attempt_id = "".join(f"{number:03d}." for number in range(45))
    scenes.recovered(journal, attempt_id)
    where = ("--dsn", server_dsn, "--schema", schema)

    history = without_styles(shown_on_a_terminal("history", attempt_id, *where))
    ready = without_styles(shown_on_a_terminal("ready", *where))

    assert attempt_id in history.replace("\n", "")
    assert "…" not in history + ready
    assert max(len(line) for line in (history + ready).splitlines()) <= 60


def test_a_rebuild_shows_a_bar_and_leaves_nothing_of_it(
    journal: Journal, server_dsn: str, schema: str
) -> None:
    scenes.recovered(journal)

    shown = shown_on_a_terminal("rebuild", "--dsn", server_dsn, "--schema", schema)

    assert "events" in shown
    assert "Rebuilt from 6 events" in shown.splitlines()[-1]


COMMANDING = {
    "a C1 control": "\x9b31m",
    "an override of the direction": "\u202egnp.exe",
    "an isolate": "\u2066a\u2069",
    "a mark of the direction": "\u200f\u061c",
    "separators of lines": "a\u2028b\u2029c",
    "no width": "a\u200bb\ufeffc",
    "a delete": "a\x7fb",
    "a tag beyond the first plane": "a\U000e0041b",
}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_nothing_stored_commands_a_terminal(
    journal: Journal, server_dsn: str, schema: str, flags: tuple[str, ...]
) -> None:
    name = "a-1" + " ".join(COMMANDING.values())
    scenes.held(journal, name, worker_id=name)
    where = ("--dsn", server_dsn, "--schema", schema, *flags)

    shown = without_styles(
        shown_on_a_terminal("history", name, *where)
        + shown_on_a_terminal("show", "b" + name, *where)
    )

    assert not [letter for letter in shown if not letter.isprintable() and letter != "\n"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@given(document=dictionaries(text(), text()))
def test_what_is_escaped_is_the_same_json(document: dict[str, str], encoding: str) -> None:
    said = json_text(document)

    assert json.loads(said.encode(encoding).decode(encoding)) == document
    assert all(letter.isprintable() for letter in said)
