"""Making the journal, recovering once, and recovering until stopped."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recovery_journal as rj
from recovery_journal import Journal, Stage
from recovery_journal.postgres.schema import newest_version
from tests.command_line import scenes
from tests.command_line.conftest import Command
from tests.command_line.processes import Spoken
from tests.values.money import CODECS, PRICE

MAKE_AN_APP = """
import recovery_journal

REDUCERS = {{"report": lambda state, name, output: [*state, name]}}
NUMBER = 42


def journal():
    limits = recovery_journal.Limits(grace_s=0.05)
    return recovery_journal.open({dsn!r}, schema={schema!r}, limits=limits, must_exist=True)


def reducers():
    return REDUCERS


def broken():
    raise RuntimeError("no configuration")
"""

DIE_AS_A_WORKER = """
import os, signal, sys
from datetime import timedelta
import recovery_journal

with recovery_journal.open(sys.argv[1], schema=sys.argv[2]) as journal:
    lease = journal.acquire(
        attempt_id="a-dead", run_id="r-dead", worker_id="w-dead", ttl=timedelta(seconds=0.2)
    )
    lease.record_step("half of it", 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def app(
    tmp_path: Path, server_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of a module of the user's own, in the folder where the command is called."""
    name = f"app_of_{schema}"
    module = tmp_path / f"{name}.py"
    module.write_text(MAKE_AN_APP.format(dsn=server_dsn, schema=schema), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def test_init_makes_the_journal_once(command: Command) -> None:
    first = command("init")
    second = command("init", "--json")
    status = command("status")

    assert (first.code, second.code, status.code) == (0, 0, 0)
    assert first.out.startswith("Made the journal: schema ")
    assert second.document["is_made"] is False
    assert second.document["version"] == newest_version()


def test_a_sweep_without_losses_says_so(command: Command, journal: Journal) -> None:
    scenes.held(journal)

    said = command("sweep")

    assert (said.code, said.out) == (0, "No lease is lost.\n")


def test_a_reported_worker_is_recovered_at_once(command: Command, journal: Journal) -> None:
    scenes.held(journal, "a-1", worker_id="w-1")
    scenes.held(journal, "a-2", worker_id="w-1")

    said = command("report-lost", "w-1", "--reason", "the pod is gone")

    assert said.code == 0
    assert re.search(r"^a-1#1 +run of a-1 +ready$", said.out, re.MULTILINE)
    assert said.out.endswith("2 attempts: 2 ready\n")
    assert journal.history("a-1")[2].event.reason == "the pod is gone"


def test_another_life_of_a_worker_is_left_alone(command: Command, journal: Journal) -> None:
    scenes.held(journal)

    said = command("report-lost", "w-1", "--incarnation", "x:1:2", "--reason", "a late hook")

    assert said.code == 0
    assert "That incarnation of worker w-1 holds no lease" in said.out
    assert journal.recovery("a-1").stage is Stage.HELD


def test_an_attempt_that_cannot_proceed_shows_in_the_exit_code(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    lease = scenes.held(journal)
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "VALUES (%s, 3, 'from-the-future', '{}')",
        lease.attempt_id,
    )

    said = command("report-lost", "w-1", "--reason", "gone")

    assert said.code == 7
    assert "found event 'from-the-future'" in said.out


def test_an_app_may_be_a_function_that_opens_the_journal(
    bare_command: Command, journal: Journal, app: str
) -> None:
    scenes.recovered(journal)

    said = bare_command("ready", "--app", f"{app}:journal", "--json")

    assert [row["attempt_id"] for row in said.document] == ["a-1"]


@pytest.mark.parametrize("attribute", ["REDUCERS", "reducers"])
def test_an_app_may_be_reducers_with_which_tails_are_folded(
    command: Command, journal: Journal, app: str, attribute: str
) -> None:
    lease = scenes.held(journal)
    lease.checkpoint([])
    lease.record_step("mail", None)

    said = command("report-lost", "w-1", "--reason", "gone", "--app", f"{app}:{attribute}")

    assert said.code == 0
    replayed = journal.recovery("a-1").replayed
    assert replayed is not None
    assert replayed.mode == "fold"
    assert replayed.state_digest is not None


def test_an_app_may_bring_the_codecs_of_its_values(
    command: Command, server_dsn: str, schema: str
) -> None:
    with rj.open(server_dsn, schema=schema, codecs=CODECS) as journal:
        lease = journal.acquire(
            attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="bill", input={"limit": PRICE}
        )
        lease.record_step("line", PRICE)

        said = command("report-lost", "w-1", "--reason", "gone", "--app", "tests.values.money:APP")

        assert said.code == 0
        (claim,) = journal.claim(worker_id="w-2")
        replayed = journal.recovery("a-1").replayed
        assert (claim.tail[0].output, replayed and replayed.mode) == (PRICE, "fold")


@pytest.mark.parametrize(
    ("attribute", "found"),
    [
        (":NUMBER", "found a int"),
        (":nothing", "has no attribute 'nothing'"),
        (":broken", "found RuntimeError: no configuration at "),
        ("_missing:journal", "found ModuleNotFoundError: "),
    ],
)
def test_an_app_that_is_none_is_refused_in_a_line(
    command: Command, app: str, attribute: str, found: str
) -> None:
    said = command("status", "--app", f"{app}{attribute}")

    assert said.code == 3
    assert found in said.err
    assert "Traceback" not in said.err


def test_an_app_that_brings_its_journal_leaves_no_choice_of_another(
    command: Command, journal: Journal, app: str
) -> None:
    scenes.held(journal)

    said = command("prune", "--older-than", "0s", "--app", f"{app}:journal")

    assert said.code == 2
    assert "leave out --dsn" in said.err


def test_run_recovers_the_attempt_of_a_dead_worker_and_stops_when_asked(
    journal: Journal, server_dsn: str, schema: str, app: str
) -> None:
    worker = subprocess.run(
        [sys.executable, "-c", DIE_AS_A_WORKER, server_dsn, schema],
        check=False,
        env=Spoken.environment(),
    )

    with Spoken("run", "--json", "--app", f"{app}:journal") as running:
        started = running.document()
        swept = running.document()
        running.until(lambda: bool(journal.contexts(attempt_id="a-dead")))
        running.send_signal(signal.SIGTERM)
        stopped = running.document()
        code = running.end()

    assert worker.returncode == -signal.SIGKILL
    assert (started["type"], started["schema"]) == ("started", schema)
    assert (swept["type"], swept["swept"]["attempt_id"]) == ("swept", "a-dead")
    assert swept["swept"]["stage"] == "ready"
    assert (stopped["type"], stopped["ready_count"]) == ("stopped", 1)
    assert (code, running.complaints) == (0, "")
    assert [row.attempt_id for row in journal.dispatch_ready()] == ["a-dead"]


def test_run_shows_a_person_what_it_does(journal: Journal, server_dsn: str, schema: str) -> None:
    scenes.held(journal)

    with Spoken("run", "--dsn", server_dsn, "--schema", schema) as running:
        first = running.line()
        running.send_signal(signal.SIGINT)
        last = running.line()
        code = running.end()

    assert re.match(rf"[\d-]+ [\d:.]+  sweeping and following schema {schema} on ", first)
    assert last.endswith("stopped; recovered 0 attempts, 0 of them ready\n")
    assert (code, running.complaints) == (0, "")


KEEP_INPUT = """
import pathlib, sys
pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())
"""


@pytest.fixture
def hook(tmp_path: Path) -> str:
    """A command that keeps its input in the file `input`."""
    program = tmp_path / "hook.py"
    program.write_text(KEEP_INPUT, encoding="utf-8")
    return f"{sys.executable} '{program}' '{tmp_path / 'input'}'"


def test_run_calls_the_hook_when_the_journal_gives_up(
    journal: Journal, server_dsn: str, schema: str, hook: str, tmp_path: Path
) -> None:
    scenes.quarantined(journal, dsn=server_dsn)

    words = ("run", "--on-quarantine", hook, "--dsn", server_dsn, "--schema", schema)
    with Spoken(*words) as running:
        running.line()
        running.until(lambda: (tmp_path / "input").exists() and bool(kept(tmp_path)))
        running.send_signal(signal.SIGTERM)
        code = running.end()

    assert (code, running.complaints) == (0, "")
    notice = json.loads(kept(tmp_path))
    assert (notice["attempt_id"], notice["cause"]) == ("a-bad", "corrupt")


def kept(folder: Path) -> str:
    return (folder / "input").read_text(encoding="utf-8")


def test_one_sweep_calls_the_hook_too(
    command: Command, journal: Journal, server_dsn: str, hook: str, tmp_path: Path
) -> None:
    scenes.quarantined(journal, dsn=server_dsn)

    said = command("sweep", "--on-quarantine", hook)

    assert (said.code, said.err) == (0, "")
    assert json.loads(kept(tmp_path))["attempt_id"] == "a-bad"


def test_a_hook_that_fails_is_reported_and_fails_no_sweep(
    command: Command, journal: Journal, server_dsn: str
) -> None:
    scenes.quarantined(journal, dsn=server_dsn)

    said = command("sweep", "--on-quarantine", f"{sys.executable} -c 'raise SystemExit(9)'")

    assert said.code == 0
    assert "the quarantine of attempt 'a-bad': found exit code 9" in said.err


@pytest.mark.usefixtures("journal")
def test_a_hook_that_is_no_command_is_refused_before_anything_is_swept(command: Command) -> None:
    said = command("sweep", "--on-quarantine", "page 'me")

    assert said.code == 3
    assert "name a program" in said.err


@pytest.mark.usefixtures("journal")
def test_run_ends_when_one_of_its_loops_breaks(server_dsn: str, schema: str) -> None:
    with Spoken("run", "--json", "--dsn", server_dsn, "--schema", schema) as running:
        running.document()
        scenes.execute(server_dsn, schema, "ALTER TABLE leases RENAME TO gone")
        code = running.end()

    assert code == 1
    assert json.loads(running.complaints)["error"]["type"] == "UndefinedTable"


def test_the_log_is_followed_until_stopped(journal: Journal, server_dsn: str, schema: str) -> None:
    scenes.held(journal, "a-1", worker_id="w-1")

    words = ("log", "--follow", "--json", "--dsn", server_dsn, "--schema", schema)
    with Spoken(*words) as following:
        first = [following.document()["event"]["type"] for _ in range(2)]
        scenes.held(journal, "a-2", worker_id="w-2")
        new = following.document()
        following.document()
        following.send_signal(signal.SIGTERM)
        code = following.end()

    assert first == ["lease-granted", "confirmed"]
    assert (new["event"]["originator_id"], new["event"]["type"]) == ("a-2", "lease-granted")
    assert new["position"] == journal.history("a-2")[0].position
    assert (code, following.complaints) == (0, "")
