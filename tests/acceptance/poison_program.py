"""A worker or a sweeper that meets poison: `python -m tests.acceptance.poison_program <settings>`.

It runs until it is killed or asked to end. Runs are named by what is wrong with them.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import psutil

import recovery_journal as rj
from tests.acceptance.stop import say, settings

LIMITS: Final = rj.Limits(
    ttl_s=5.0,
    grace_s=0.1,
    session_grace_s=0.1,
    session_poll_s=0.02,
    reducer_s=0.5,
    policy=rj.Policy(
        raise_limit=3,
        crash_loop_count=3,
        backoff_s=0.05,
        backoff_limit_s=0.2,
        version_wait_s=1.0,
    ),
)
LARGE: Final = 100_000_000
RESULT: Final = "done"
TOUCHED: Final = "touched"


def good(claim: rj.Claim) -> str:
    """The function of all other runs."""
    claim.lease.record_step(TOUCHED)
    return RESULT


def kill_its_worker(_claim: rj.Claim) -> None:
    """Take the worker along, as what exhausts the memory of a machine does."""
    guardian = psutil.Process(os.getppid())
    os.kill(guardian.ppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_itself(_claim: rj.Claim) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_claim: rj.Claim) -> None:
    time.sleep(600)


def save_too_much(claim: rj.Claim) -> None:
    claim.lease.checkpoint(b"\0" * LARGE)


def count(state: Any, _name: str, _output: Any) -> Any:
    return {"count": (state or {}).get("count", 0) + 1}


def never_end(_state: Any, _name: str, _output: Any) -> Any:
    while True:
        pass


def raise_error(_state: Any, _name: str, _output: Any) -> Any:
    raise ValueError("cannot fold this")


def die(_state: Any, _name: str, _output: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def draw(_state: Any, _name: str, _output: Any) -> Any:
    return {"drawn": os.urandom(8)}


FUNCTIONS: Final[dict[str, Callable[[rj.Claim], object]]] = {
    "good": good,
    "kills its worker": kill_its_worker,
    "kills itself": kill_itself,
    "hangs": hang,
    "saves too much": save_too_much,
    "never ends": good,
    "raises": good,
    "dies": good,
    "draws": good,
}
REDUCERS: Final = {
    "good": count,
    "never ends": never_end,
    "raises": raise_error,
    "dies": die,
    "draws": draw,
}


def serve() -> None:
    """In the role that the settings name: a worker, or a sweeper, that folds or does not."""
    given = settings()
    role, _, code_version = given.stop_at.partition(" ")
    reducers = REDUCERS if role.startswith("folding") else {}
    with rj.open(given.dsn, schema=given.schema, limits=LIMITS, reducers=reducers) as journal:
        say(given.stop_at)
        if role.endswith("sweeper"):
            rj.Sweeper(journal, longest_pause_s=0.1).run()
            return
        worker = rj.Worker(
            journal,
            f"worker {os.getpid()}",
            FUNCTIONS,
            code_versions=[code_version] if code_version else None,
            stalled_after_s=0.5,
            longest_pause_s=0.1,
            on_event=lambda _notice: None,
        )
        worker.run()


if __name__ == "__main__":
    serve()
