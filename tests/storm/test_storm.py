"""A short storm, with real processes on a server of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 110


def storm(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Everything that it makes lies below the folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.storming", *arguments],
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


@pytest.mark.timeout(LIMIT_S + 10)
def test_a_short_storm_is_survived_and_leaves_nothing_behind(server_folder: Path) -> None:
    process = storm(server_folder, "--minutes", "0.25", "--seed", "7", "--json")

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, said
    figures = json.loads(output)
    assert (figures["seed"], figures["violations"]) == (7, [])
    assert figures["survived"]["kills"] > 0
    assert figures["told"]["lease-ended"] == figures["survived"]["attempts"] > 0
    assert figures["checked"]["claims"] > 0
    assert "nothing lost, nothing owned twice" in said
    assert list(server_folder.iterdir()) == []
    assert left_behind(server_folder) == []


def test_a_storm_that_is_broken_off_leaves_nothing_behind(server_folder: Path) -> None:
    process = storm(server_folder, "--minutes", "2")
    members: list[psutil.Process] = []
    deadline = time.monotonic() + LIMIT_S
    while len(members) < 10 and time.monotonic() < deadline:
        members = psutil.Process(process.pid).children()
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 130, said
    assert len(members) >= 10
    assert [it for it in members if it.is_running()] == []
    assert list(server_folder.iterdir()) == []
    assert left_behind(server_folder) == []
