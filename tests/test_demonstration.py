"""The demonstration, small but with real processes; and each of its checks, on altered evidence."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace
from rich.console import Console

from scripts.bootstrap import ROOT
from scripts.demonstration import checks
from scripts.demonstration.__main__ import conclude, main, perform
from scripts.demonstration.acts import Kind, plan
from scripts.demonstration.evidence import Evidence, TableRows
from scripts.demonstration.job import (
    Executions,
    Statistics,
    job_input,
    merged,
    standard_library,
    statistics_of,
)
from scripts.demonstration.players import Order, Players, Trouble
from scripts.harness.fleet import Fleet
from scripts.harness.life import Role, Setting
from scripts.harness.program import handled, leave
from scripts.harness.screen import Screen

FILE_COUNT = 40
CHECKPOINT_EVERY = 5
GONE_LIMIT_S = 20

Alter = Callable[[Evidence], Evidence]


def screen() -> Screen:
    return Screen(Console(file=StringIO(), highlight=False))


def shown(on: Screen) -> str:
    file = on.console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """The evidence of a small performance."""
    given = job_input(standard_library(), checkpoint_every=CHECKPOINT_EVERY, file_limit=FILE_COUNT)
    return perform(given, screen())


@pytest.mark.parametrize("check", checks.CHECKS)
def test_everything_holds_after_a_real_performance(
    evidence: Evidence, check: Callable[[Evidence], checks.Check]
) -> None:
    found = check(evidence)

    assert found.holds, found


def test_a_performance_leaves_no_process(evidence: Evidence) -> None:
    left = psutil.Process().children(recursive=True)

    assert evidence.recoveries
    assert [one.cmdline() for one in left if any("spawn_main" in it for it in one.cmdline())] == []


def test_each_worker_that_was_struck_is_replaced_from_its_checkpoint(evidence: Evidence) -> None:
    planned = plan(FILE_COUNT, CHECKPOINT_EVERY)

    starts = {(one.checkpoint_ordinal, one.to_ordinal) for one in evidence.recoveries}

    assert tuple(struck.fault for struck in evidence.struck) == planned
    assert starts >= {(5, 6), (10, 15), (20, 22), (30, 31)}


def test_where_all_holds_the_exit_code_is_zero_and_the_story_is_shown(evidence: Evidence) -> None:
    on = screen()

    code = conclude(evidence, on)

    assert code == 0
    for one in evidence.recoveries:
        assert f"#{one.recovery_no}  {one.worker_id} → {one.dispatched_to}" in shown(on)
        assert one.checkpoint_ordinal is not None
        assert f"replayed {one.checkpoint_ordinal + 1}-{one.to_ordinal}" in shown(on)
    assert "✗" not in shown(on)


def other_digest(evidence: Evidence) -> Evidence:
    return replace(evidence, disturbed_digest="cs1:" + 64 * "0")


def no_digest(evidence: Evidence) -> Evidence:
    return replace(evidence, disturbed_digest="None", undisturbed_digest="None")


def one_loss_unrecovered(evidence: Evidence) -> Evidence:
    others = [one for one in evidence.recoveries if one.loss != "reported"]
    return replace(evidence, recoveries=tuple(others))


def one_fault_missing(evidence: Evidence) -> Evidence:
    spared = [one for one in evidence.struck if one.fault.kind is not Kind.SUSPEND]
    return replace(evidence, struck=tuple(spared))


def no_worker_took_over(evidence: Evidence) -> Evidence:
    *others, last = evidence.recoveries
    return replace(evidence, recoveries=(*others, replace(last, dispatched_to="")))


def other_evidence_of_a_loss(evidence: Evidence) -> Evidence:
    first, *others = evidence.recoveries
    return replace(evidence, recoveries=(replace(first, loss="handed_back"), *others))


def one_replay_unverified(evidence: Evidence) -> Evidence:
    first, *others = evidence.recoveries
    return replace(evidence, recoveries=(replace(first, is_verified=False), *others))


def killed_after_the_checkpoint(evidence: Evidence) -> Evidence:
    first, second, *others = evidence.recoveries
    late = replace(second, checkpoint_ordinal=second.to_ordinal)
    return replace(evidence, recoveries=(first, late, *others))


def begun_again(evidence: Evidence) -> Evidence:
    *others, last = evidence.executions
    return replace(evidence, executions=(*others, (3, *last)))


def done_again(evidence: Evidence) -> Evidence:
    *others, last = evidence.executions
    return replace(evidence, executions=(*others, (*last, 1)))


def one_file_left_out(evidence: Evidence) -> Evidence:
    without = tuple(tuple(file for file in one if file != 1) for one in evidence.executions)
    return replace(evidence, executions=without)


def doubt_kept_secret(evidence: Evidence) -> Evidence:
    silent = tuple(replace(one, in_doubt=()) for one in evidence.recoveries)
    return replace(evidence, recoveries=silent)


def nothing_spared(evidence: Evidence) -> Evidence:
    everything = tuple(range(1, FILE_COUNT + 1))
    return replace(evidence, executions=(everything,), resumed_after=())


def not_refused(evidence: Evidence) -> Evidence:
    return replace(evidence, refusals=())


def refused_under_another_fence(evidence: Evidence) -> Evidence:
    others = tuple(replace(one, epoch=one.epoch + 1_000) for one in evidence.refusals)
    return replace(evidence, refusals=others)


def refused_before_the_end(evidence: Evidence) -> Evidence:
    return replace(evidence, completed_position=evidence.refusals[-1].position + 1)


def worked_on(evidence: Evidence) -> Evidence:
    return replace(evidence, waking=replace(evidence.waking, execution_count=1))


def another_row(evidence: Evidence) -> Evidence:
    first, *others = evidence.rebuilt.after
    wrong = replace(first, digest="sha256:0")
    return replace(evidence, rebuilt=replace(evidence.rebuilt, after=(wrong, *others)))


def another_table(evidence: Evidence) -> Evidence:
    new = TableRows(table="projection_new", row_count=0, digest="sha256:0")
    after = (*evidence.rebuilt.after, new)
    return replace(evidence, rebuilt=replace(evidence.rebuilt, after=after))


def not_really_dropped(evidence: Evidence) -> Evidence:
    return replace(evidence, rebuilt=replace(evidence.rebuilt, left_count=1))


def no_rows(evidence: Evidence) -> Evidence:
    empty = tuple(replace(one, row_count=0) for one in evidence.rebuilt.before)
    return replace(evidence, rebuilt=replace(evidence.rebuilt, before=empty, after=empty))


@pytest.mark.parametrize(
    ("alter", "name"),
    [
        (other_digest, "the same result"),
        (no_digest, "the same result"),
        (one_loss_unrecovered, "every loss recovered"),
        (one_fault_missing, "every loss recovered"),
        (no_worker_took_over, "every loss recovered"),
        (other_evidence_of_a_loss, "every loss recovered"),
        (one_replay_unverified, "every replay verified"),
        (killed_after_the_checkpoint, "every replay verified"),
        (begun_again, "no work done again"),
        (done_again, "no work done again"),
        (one_file_left_out, "no work done again"),
        (doubt_kept_secret, "no work done again"),
        (nothing_spared, "no work done again"),
        (not_refused, "the sleeper refused"),
        (refused_under_another_fence, "the sleeper refused"),
        (refused_before_the_end, "the sleeper refused"),
        (worked_on, "the sleeper refused"),
        (another_row, "the same rows"),
        (another_table, "the same rows"),
        (not_really_dropped, "the same rows"),
        (no_rows, "the same rows"),
    ],
)
def test_what_does_not_hold_is_named_and_the_exit_code_says_so(
    evidence: Evidence, alter: Alter, name: str
) -> None:
    on = screen()

    code = conclude(alter(evidence), on)

    assert code == 1
    assert f"✗  {name}" in shown(on)
    assert shown(on).splitlines()[-1].endswith(name)


def test_too_few_files_break_it_off_before_anything_is_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["--files", "10"])

    assert code == 1
    assert "found 10 files" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_breaks_it_off_leaves_nothing_running(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "scripts.demonstration", "--files", "200"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demonstration:
        assert demonstration.stdout
        is_working = any("works, starting" in line for line in demonstration.stdout)
        started = psutil.Process(demonstration.pid).children(recursive=True)
        demonstration.send_signal(number)
        said = demonstration.stdout.read()
    _gone, alive = psutil.wait_procs(started, timeout=GONE_LIMIT_S)

    assert is_working
    assert len(started) >= 2, "a worker and its child"
    assert demonstration.returncode == 130
    assert "interrupted" in said
    assert alive == []


def test_a_signal_that_comes_while_a_finalizer_runs_breaks_it_off_all_the_same() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def die() -> None:
        Dying()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), handled(leave):
        die()


def test_a_process_that_ends_by_itself_is_trouble(tmp_path: Path) -> None:
    order = Order(role=Role.SWEEPER, name="sweeper", executions=str(tmp_path))
    setting = Setting(dsn="host=/nowhere", folder=tmp_path)

    with (
        Fleet(setting, start="spawn") as fleet,
        pytest.raises(Trouble, match="sweeper ended by itself with exit code 1"),
    ):
        Players(fleet).start_idle(order)


def test_a_file_that_is_no_python_is_a_result_too(tmp_path: Path) -> None:
    unclosed, not_text = tmp_path / "unclosed.py", tmp_path / "not_text.py"
    unclosed.write_text("call(\n", encoding="utf-8")
    not_text.write_bytes(b"name = '\xff'\n")

    found = [statistics_of(path) for path in (unclosed, not_text)]

    assert [sum(one["problems"].values()) for one in found] == [1, 1]
    assert [one["files"] for one in found] == [1, 1]
    assert [one["tokens"] for one in found] == [{}, {}]


def test_statistics_count_lines_tokens_and_names(tmp_path: Path) -> None:
    path = tmp_path / "small.py"
    path.write_text("a = b\na = a\n", encoding="utf-8")

    found = statistics_of(path)

    assert found["lines"] == 2
    assert found["names"] == {"a": 3, "b": 1}
    assert found["tokens"] == {"NAME": 4, "OP": 2, "NEWLINE": 2, "ENDMARKER": 1}


def statistics(**counts: Any) -> Statistics:
    return {"files": 1, "lines": 0, "tokens": {}, "names": {}, "problems": {}, **counts}


def test_merging_adds_and_changes_neither_side() -> None:
    one = statistics(lines=2, tokens={"OP": 1}, names={"a": 1})
    other = statistics(lines=3, tokens={"OP": 2}, names={"b": 1})

    first = merged({"paths": ["one.py", "other.py"]}, "one.py", one)
    both = merged(first, "other.py", other)

    assert both["files"] == 2
    assert both["lines"] == 5
    assert both["tokens"] == {"OP": 3}
    assert both["names"] == {"a": 1, "b": 1}
    assert (one["names"], other["names"]) == ({"a": 1}, {"b": 1})


def test_the_job_leaves_out_tests_and_what_was_installed(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "test/c.py", "site-packages/d.py", "package/e.py", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    given = job_input(tmp_path, checkpoint_every=5)

    assert given["paths"] == ["a.py", "b.py", "package/e.py"]


def test_executions_are_kept_apart_by_run(tmp_path: Path) -> None:
    executions = Executions(tmp_path)
    for key in ("one/1", "one/2", "other/1", "one/2"):
        executions.note(key)

    assert executions.of("one") == {os.getpid(): (1, 2, 2)}
    assert executions.file_count("one") == 2
    assert executions.of("unknown") == {}


@pytest.mark.parametrize("file_count", [100, 101, 347, 601, 1_000, 4_999])
def test_faults_come_one_after_the_other_and_one_right_before_a_checkpoint(file_count: int) -> None:
    planned = plan(file_count, 25)

    ordinals = [fault.ordinal for fault in planned]

    assert ordinals == sorted(set(ordinals))
    assert ordinals[0] > 0
    assert ordinals[-1] < file_count
    assert ordinals[1] % 25 == 0
    assert {fault.kind for fault in planned} == set(Kind)
