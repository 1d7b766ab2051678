"""A worker may be the first process of its container: it reaps what its functions leave behind."""

import os
import shutil
import subprocess

import psutil
import pytest

from recovery_journal.worker.outcome import Outcome
from tests.worker.desk import Desk
from tests.worker.functions import until

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")

needs_containers = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0,
    reason="no namespace of processes can be made here",
)


def zombies_of(pid: int) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    return [one for one in found if one.status() == psutil.STATUS_ZOMBIE]


@needs_containers
@pytest.mark.parametrize("kind", ["leave_helpers", "leave_daemons"])
def test_no_zombies_are_left_by_any_number_of_attempts(desk: Desk, kind: str) -> None:
    for number in range(5):
        desk.make_ready(f"a-{number}", kind)

    worker = desk.start(within=CONTAINER)

    assert worker.until_ended(5) == [Outcome.COMPLETED] * 5
    until(lambda: zombies_of(worker.process.pid) == [], "the last zombie to be reaped")
    assert worker.process.poll() is None
