"""The command line in this process, against a journal of the test's own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import recovery_journal
from recovery_journal import Journal, Limits
from recovery_journal.cli.main import main


@dataclass(frozen=True)
class Said:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        """The documents of a stream, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON object on standard error."""
        return json.loads(self.err)["error"]


Command = Callable[..., Said]


@pytest.fixture
def bare_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line as it is given."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def command(
    bare_command: Command, server_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command on the test's schema, off a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> Said:
        return bare_command("--dsn", server_dsn, "--schema", schema, *arguments)

    return run


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[Journal]:
    """The journal that the commands inspect."""
    with recovery_journal.open(server_dsn, schema=schema, limits=Limits(grace_s=0.05)) as opened:
        yield opened
