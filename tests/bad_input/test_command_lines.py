"""Whatever is typed, in whatever surroundings: an exit code that the help explains, a message, and
nothing half-written."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.main import main
from recovery_journal.cli.serving import Service
from tests.bad_input.command_lines import FILES, RIGHT, WORDS, lines, typed
from tests.bad_input.scene import Scene
from tests.bad_input.test_public_calls import TOLERANT
from tests.schemas import own_schema

EXAMPLES = int(os.environ.get("RECOVERY_JOURNAL_EXAMPLES", "6"))
LINES = lines()
GLOBALS = LINES[0]
BY_WORDS = {" ".join(line.words) or "(none)": line for line in LINES}
UNCHANGED = (ExitCode.USAGE, ExitCode.REFUSED, ExitCode.RETRY, ExitCode.STOP)
LIMIT_S = 60
CHECKOUT = Path(__file__).resolve().parents[2]

SURROUNDINGS: list[Mapping[str, str]] = [
    {"RECOVERY_JOURNAL_DSN": ""},
    {"RECOVERY_JOURNAL_DSN": "nonsense"},
    {"RECOVERY_JOURNAL_DSN": "host=\udcff"},
    {"RECOVERY_JOURNAL_SCHEMA": "pg_mine"},
    {"RECOVERY_JOURNAL_SCHEMA": "\udcff"},
    {"RECOVERY_JOURNAL_SCHEMA": "x" * 5_000},
    {"RECOVERY_JOURNAL_DATA": "a_file"},
    {"RECOVERY_JOURNAL_DATA": "damaged"},
    {"COLUMNS": "nonsense"},
    {"COLUMNS": "0"},
    {"COLUMNS": "-5"},
    {"COLUMNS": "1"},
    {"LINES": "\udcff", "TERM": "nonsense"},
    {"NO_COLOR": "1", "FORCE_COLOR": "1"},
    {"TZ": "Nowhere/Nowhere"},
    {"PGPORT": "nonsense"},
    {"PGOPTIONS": "--nonsense"},
    {"PGSSLMODE": "nonsense"},
    {"PGCLIENTENCODING": "nonsense"},
    {"PGTZ": "nonsense"},
    {"PGSERVICE": "nowhere"},
    {"LANG": "nonsense", "LC_ALL": "nonsense", "PYTHONIOENCODING": "ascii"},
    {"HOME": "/nowhere"},
]


@pytest.fixture(scope="module")
def scene(server_dsn: str) -> Iterator[Scene]:
    """One journal for all commands."""
    with own_schema(server_dsn) as schema, rj.open(server_dsn, schema=schema) as journal:
        yield Scene(journal, server_dsn)


@pytest.fixture(scope="module", autouse=True)
def _surroundings(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scene's journal by default, files of the user's own where one stands, and a service that
    stops as soon as it has started."""
    folder = tmp_path_factory.mktemp("desk")
    put_files(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("RECOVERY_JOURNAL_DSN", scene.dsn)
        patched.setenv("RECOVERY_JOURNAL_SCHEMA", scene.journal.database.schema)
        patched.setenv("RECOVERY_JOURNAL_DATA", "a_file")
        patched.setenv("PGHOST", "/nowhere")
        patched.setattr(Service, "run", lambda _service: sys.stdout.write("stopped\n"))
        yield


def put_files(folder: Path) -> None:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_something_right_is_known_for_every_option_and_argument() -> None:
    names = {it.name for line in LINES for it in line.parameters if not it.is_flag}

    assert len(LINES) > 15
    assert names == set(RIGHT)


@pytest.mark.parametrize("words", BY_WORDS)
def test_any_words_after_a_command_are_answered_or_refused(
    scene: Scene, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    line = BY_WORDS[words]

    @settings(TOLERANT, max_examples=EXAMPLES)
    @given(arguments=typed(line, GLOBALS), more=st.lists(st.sampled_from(WORDS), max_size=1))
    def attacked(arguments: list[str], more: list[str]) -> None:
        _attack(scene, [*arguments, *more], capfd)

    attacked()


@settings(TOLERANT, max_examples=EXAMPLES * 4)
@given(arguments=st.lists(st.sampled_from((*WORDS, *BY_WORDS)) | st.text(max_size=5), max_size=4))
def test_any_words_at_all_are_answered_or_refused(
    scene: Scene, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    _attack(scene, arguments, capfd)


@pytest.mark.parametrize("surroundings", SURROUNDINGS, ids=str)
def test_a_command_in_any_surroundings_is_answered_or_refused(
    scene: Scene,
    surroundings: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)

    _attack(scene, ["status"], capfd)
    _attack(scene, ["history", "held", "--json"], capfd)


PROCESSES: list[tuple[list[str], Mapping[str, str]]] = [
    (["history", "a\udcff", "--json"], {}),
    (["history", "\U0001f4a9"], {"PYTHONIOENCODING": "ascii"}),
    (["--app", "\udcff:a", "status", "--json"], {}),
    (["--app", "their_exit:app", "status"], {}),
    (["--app", "their_interrupt:app", "status", "--json"], {}),
    (["--data", "a_file/below", "status"], {}),
    (["--data", "~no-such-user/x", "status"], {}),
    (["--dsn", "host=\udcff", "status", "--json"], {}),
    (["log", "--follow", "--after", "9" * 5_000], {}),
    (["run", "--no-such"], {}),
    (["status"], {"RECOVERY_JOURNAL_SCHEMA": "\udcff", "COLUMNS": "nonsense"}),
    (["prune", "--older-than", "9" * 5_000 + "w"], {}),
]


@pytest.mark.parametrize(("arguments", "surroundings"), PROCESSES, ids=str)
def test_a_process_is_answered_or_refused(
    scene: Scene, tmp_path: Path, arguments: list[str], surroundings: Mapping[str, str]
) -> None:
    put_files(tmp_path)
    scene.note()

    found = subprocess.run(
        [sys.executable, "-m", "recovery_journal.cli.main", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **surroundings},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=LIMIT_S,
        check=False,
    )

    said = [part.decode(errors="replace") for part in (found.stdout, found.stderr)]
    _judge(scene, arguments, found.returncode, *said)


def _attack(scene: Scene, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    scene.note()
    code = main(arguments)
    said = capfd.readouterr()
    _judge(scene, arguments, code, said.out, said.err)


def _judge(scene: Scene, arguments: list[str], code: int, out: str, err: str) -> None:
    """As the help says, in words, with the stores as they were or as they should be."""
    result = (arguments, code, out[-500:], err[-2_000:])
    assert code in set(ExitCode), result
    assert code not in (ExitCode.UNEXPECTED, ExitCode.INTERRUPTED, ExitCode.PIPE_CLOSED), result
    assert "Traceback" not in err, result
    if code in UNCHANGED:
        assert err or "Usage:" in out, result
        if err.startswith("{"):
            assert json.loads(err)["error"]["exit_code"] == code, result
        elif "Usage:" not in out + err:
            assert "recovery-journal: " in err, result
    else:
        assert out, result
    scene.assert_whole(is_changed=code not in UNCHANGED)
