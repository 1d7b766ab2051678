"""Programs of ours that begin a whole fleet and a server of its own, all below one folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 110


def begin(module: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Everything that it makes lies below the folder."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def break_off(process: subprocess.Popen[str], folder: Path, *, member_count: int) -> None:
    """By Ctrl-C, once so many processes are at work; then nothing of it may be left."""
    members: list[psutil.Process] = []
    deadline = time.monotonic() + LIMIT_S
    while len(members) < member_count and time.monotonic() < deadline:
        members = psutil.Process(process.pid).children()
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 130, said
    assert len(members) >= member_count
    assert psutil.wait_procs(members, timeout=LIMIT_S)[1] == []
    assert_nothing_left(folder)


def assert_nothing_left(folder: Path) -> None:
    """Neither a file nor a process of its server."""
    assert list(folder.iterdir()) == []
    assert left_behind(folder) == []


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
