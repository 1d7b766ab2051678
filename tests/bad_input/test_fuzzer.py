"""The fuzzer: what it feeds is a log, its way is sound, and it finds what was planted."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from eventsourcing.persistence import JSONTranscoder
from hypothesis import given
from hypothesis import strategies as st

from recovery_journal.domain.events import AnyEvent
from recovery_journal.library_adapter import LibraryMapper
from recovery_journal.projections.corpus import corpus
from scripts.fuzzing import __main__ as program
from scripts.fuzzing.mutation import crossed, mutate
from scripts.fuzzing.stored import read, seeds, written
from scripts.fuzzing.way import go
from scripts.planting import copy_with, plants

EXECUTIONS = 60_000
LIMIT_S = 600
PLANTS = plants("fuzzing/plants.toml")
COMMAND = [sys.executable, "-m", "scripts.fuzzing"]
SEEDS = tuple(seeds())


def test_a_log_is_read_as_it_was_written() -> None:
    mapper = LibraryMapper(JSONTranscoder())
    records = corpus()[:50]

    found = read(written(records))

    def stored(event: AnyEvent) -> tuple[str, int, str, bytes]:
        one = mapper.to_stored_event(event)
        return str(one.originator_id), one.originator_version, one.topic, one.state

    assert [(it.stream, it.version, it.tag, it.state) for it in found] == [
        stored(it.event) for it in records
    ]
    assert [(it.position, it.recorded_at) for it in found] == [
        (it.position, it.recorded_at) for it in records
    ]


@given(log=st.binary(max_size=300))
def test_any_bytes_are_a_log_and_go_the_whole_way(log: bytes) -> None:
    go(log)


def test_every_seed_goes_the_whole_way() -> None:
    for seed in SEEDS:
        go(seed)


@given(seed=st.sampled_from(SEEDS), other=st.sampled_from(SEEDS), number=st.integers(0, 2**32))
def test_a_changed_log_goes_the_whole_way(seed: bytes, other: bytes, number: int) -> None:
    random = Random(number)
    log = mutate(crossed(seed, other, random), random, lambda it: it)
    go(mutate(log, random, lambda it: it))


def test_the_same_seed_makes_the_same_changes() -> None:
    made = [mutate(SEEDS[-1], Random(number), lambda it: it) for number in range(50)]
    again = [mutate(SEEDS[-1], Random(number), lambda it: it) for number in range(50)]

    assert made == again
    assert len(set(made)) > 30


def test_without_its_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["scripts/fuzz"])

    assert program.main() == 2

    assert "pip install --group fuzz" in capsys.readouterr().err


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found_and_the_command_that_is_printed_shows_it_again(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip("atheris")
    options = ["--executions", str(EXECUTIONS), "--findings", str(tmp_path)]
    with copy_with(PLANTS[name].edits) as copy:
        found = _run(copy, options)
        assert found.returncode == 1, found.stderr
        assert json.loads(found.stdout)["findings"] == 1
        again = found.stderr.partition("to see it again: scripts/fuzz ")[2].split()
        assert "Traceback" in _run(copy, again).stderr
    assert _run(program.ROOT, again).returncode == 0


@pytest.mark.timeout(LIMIT_S)
def test_nothing_is_found_in_what_is_sound(tmp_path: Path) -> None:
    pytest.importorskip("atheris")

    found = _run(program.ROOT, ["--executions", "600", "--findings", str(tmp_path)])

    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["executions"], report["findings"]) == (600, 0)
    assert report["branches"] > 100
    assert list(tmp_path.iterdir()) == []


def _run(folder: Path, options: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
