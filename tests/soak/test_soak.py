"""Short soaks, with real processes on a server of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.soaking.leak import Leak

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 110


def soak(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Everything that it makes lies below the folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.soaking", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(folder: Path) -> list[psutil.Process]:
    """Processes of its server."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def figures_of(output: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(output)
    return figures


@pytest.mark.timeout(LIMIT_S + 10)
def test_a_healthy_fleet_passes_a_short_soak_and_leaves_nothing_behind(server_folder: Path) -> None:
    process = soak(server_folder, "--minutes", "0.2", "--past", "1000", "--json")

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, said
    figures = figures_of(output)
    assert (figures["growing"], figures["wrongs"]) == ([], [])
    assert "nothing grows" in said
    seen = {(it["name"].partition(" (")[0], it["figure"]) for it in figures["judged"]}
    steady = ("worker-1", "sweeper-2", "follower-1", "starter-1", "rebuilder-1", "reader-1")
    for figure in ("memory, MB", "open files", "threads", "children"):
        assert seen.issuperset((name, figure) for name in (*steady, "caller-1", "soak itself"))
    assert {("backend of follower-1", "memory, MB"), ("postmaster", "memory, MB")} <= seen
    assert {("connections of caller-1", "connections"), ("server", "advisory locks")} <= seen
    assert ("table leases", "bytes per row") in seen
    assert list(server_folder.iterdir()) == []
    assert left_behind(server_folder) == []


@pytest.mark.timeout(LIMIT_S + 10)
def test_planted_leaks_are_found_where_they_are(server_folder: Path) -> None:
    plants = [it for leak in Leak for it in ("--plant", leak)]
    process = soak(server_folder, "--minutes", "0.15", "--past", "300", "--json", *plants)

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1, said
    found = {(it["name"], it["figure"]): it["text"] for it in figures_of(output)["growing"]}
    assert {
        ("follower-1", "memory, MB"),
        ("follower-2", "memory, MB"),
        ("reader-1", "open files"),
        ("connections of caller-1", "connections"),
    } <= found.keys()
    innocent = ("worker", "sweeper", "starter", "child of a worker")
    assert [name for name, _figure in found if name.startswith(innocent)] == []
    assert f"GROWS: {found['reader-1', 'open files']}" in said
    [kept] = server_folder.iterdir()
    assert {"samples.jsonl", "reader-1.log"} <= {it.name for it in kept.iterdir()}
    assert left_behind(server_folder) == []


def test_a_soak_that_is_broken_off_leaves_nothing_behind(server_folder: Path) -> None:
    process = soak(server_folder, "--past", "10")
    members: list[psutil.Process] = []
    deadline = time.monotonic() + LIMIT_S
    while len(members) < 12 and time.monotonic() < deadline:
        members = psutil.Process(process.pid).children()
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 130, said
    assert len(members) >= 12
    assert psutil.wait_procs(members, timeout=LIMIT_S)[1] == []
    assert list(server_folder.iterdir()) == []
    assert left_behind(server_folder) == []
