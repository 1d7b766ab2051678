"""The functions that the workers of these tests run.

By the files in the folder that its input names, a test observes and controls a function.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from recovery_journal.claiming.loading import Claim
from recovery_journal.store.lease import Lease
from recovery_journal.worker.session_lock import SessionLock

LIMIT_S = 60
PAUSE_S = 0.01


def until(is_so: Any, what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(PAUSE_S)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def mark(path: Path, text: str = "") -> None:
    """Write a file all at once."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def count(claim: Claim) -> int:
    """Three run steps and a checkpoint."""
    for number in range(3):
        claim.lease.record_step(f"count {number}", number)
    claim.lease.checkpoint({"counted": 3})
    return claim.lease.progress.ordinal


def raise_error(claim: Claim) -> None:
    raise ValueError(f"cannot count {claim.input!r}")


def leave(_claim: Claim) -> None:
    os._exit(0)


def wait(claim: Claim) -> str:
    claim.lease.wait("a person must look")
    return "never recorded"


def hand_back(claim: Claim) -> None:
    claim.lease.hand_back("not today")


def return_a_function(_claim: Claim) -> Any:
    return until


def hold_until_let_go(claim: Claim) -> None:
    folder = Path(claim.input)
    mark(folder / "started", str(os.getpid()))
    until((folder / "go").exists, "the file `go`")


def hold(claim: Claim) -> str:
    """Say that it runs, and write nothing until it is let go."""
    hold_until_let_go(claim)
    claim.lease.record_step("held", os.getpid())
    return "held"


def hold_with_a_tool(claim: Claim) -> str:
    """Wait for a program that ends once it is let go."""
    folder = Path(claim.input)
    script = "while [ ! -e go ]; do sleep 0.02; done"
    tool = subprocess.Popen(["sh", "-c", script], cwd=folder)
    mark(folder / "started", str(os.getpid()))
    if tool.wait():
        raise subprocess.CalledProcessError(tool.returncode, script)
    return "held"


def hold_and_write(claim: Claim, write: Callable[[Lease], object]) -> int:
    """Have an effect, then write, and record how many effects there were."""
    hold_until_let_go(claim)
    effects = Path(claim.input) / "effects"
    count = int(effects.read_text()) + 1 if effects.exists() else 1
    effects.write_text(str(count))
    mark(Path(claim.input) / "written")
    write(claim.lease)
    return count


def hold_and_record(claim: Claim) -> int:
    return hold_and_write(claim, lambda lease: lease.record_step("held"))


def hold_and_announce(claim: Claim) -> int:
    return hold_and_write(claim, lambda lease: lease.begin_step("held"))


def hold_and_save(claim: Claim) -> int:
    return hold_and_write(claim, lambda lease: lease.checkpoint("held"))


def hold_and_raise(claim: Claim) -> str:
    hold(claim)
    raise ValueError("of its own")


def leave_helpers(_claim: Claim) -> None:
    """Leave a child of its own, and one of a shell that has ended."""
    subprocess.Popen(["sleep", "0.3"])
    subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"], check=True)


def leave_daemons(_claim: Claim) -> None:
    """Leave processes that have left the function's group."""
    subprocess.Popen(["sleep", "0.3"], start_new_session=True)
    subprocess.run(["sh", "-c", "setsid sleep 0.2 & exit 0"], check=True)


def hold_the_interpreter(claim: Claim) -> str:
    """One call that lets no other thread run for more than two seconds."""
    began = time.perf_counter()
    sum(range(1_000_000))
    million_s = time.perf_counter() - began
    mark(Path(claim.input) / "started", str(os.getpid()))
    sum(range(round(2.5 / million_s) * 1_000_000))
    mark(Path(claim.input) / "held")
    return "held"


def print_much(claim: Claim) -> str:
    """Print in all ways, before and after a run step, and have a program print."""
    for number in range(3):
        print("x" * 100_000)  # noqa: T201
        print("an error", file=sys.stderr, flush=True)  # noqa: T201
        logging.getLogger("printed").warning("a warning")
        subprocess.run(["sh", "-c", "echo of a tool; exit 0"], check=True)
        claim.lease.record_step("print", number)
    return "printed"


def hold_against_sigterm(claim: Claim) -> str:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hold(claim)


def hold_with_a_fork(claim: Claim) -> str:
    """Have a child of its own that never ends."""
    return _hold_beside_a_fork(claim, leave_group=lambda: None)


def hold_with_a_daemon(claim: Claim) -> str:
    """Have one that has left the group of processes that ends with the worker."""
    return _hold_beside_a_fork(claim, leave_group=os.setsid)


def _hold_beside_a_fork(claim: Claim, leave_group: Callable[[], object]) -> str:
    folder = Path(claim.input)
    if os.fork() == 0:
        leave_group()
        mark(folder / "forked", str(os.getpid()))
        while True:
            signal.pause()
    until((folder / "forked").exists, "the fork")
    return hold(claim)


def work_for_ever(claim: Claim) -> None:
    """Record run step after run step."""
    folder = Path(claim.input)
    while not (folder / "go").exists():
        claim.lease.record_step("more")
        if not (folder / "started").exists():
            mark(folder / "started", str(os.getpid()))


FUNCTIONS = {
    function.__name__: function
    for function in (
        count,
        raise_error,
        leave,
        wait,
        hand_back,
        return_a_function,
        hold,
        hold_against_sigterm,
        hold_with_a_daemon,
        hold_with_a_fork,
        hold_with_a_tool,
        hold_and_announce,
        hold_and_raise,
        hold_and_record,
        hold_and_save,
        hold_the_interpreter,
        leave_daemons,
        leave_helpers,
        print_much,
        work_for_ever,
    )
}


def has_notice(lock: SessionLock) -> bool:
    """Whether a notification has been read and not taken yet."""
    return lock._listener._call is not None
