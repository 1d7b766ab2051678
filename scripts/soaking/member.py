"""The parts of a soak test that a chaos test has not, or not in this way; leaks planted in them."""

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Final
from uuid import uuid4

import psycopg
from typer.testing import CliRunner

import recovery_journal as rj
from recovery_journal.cli.main import app
from scripts.harness.job import KINDS, Run, State, output, step_name, work
from scripts.harness.life import Part, Role, Setting, asked_to_end, report
from scripts.harness.parts import follow, open_attempts, opened, rebuild, sweep

DRAIN_S: Final = 0.2  # so short that a worker that is relieved mostly hands its attempt back
REBUILD_PAUSE_S: Final = 5.0
READ_PAUSE_S: Final = 1.0
CALL_PAUSE_S: Final = 0.5
THREADS: Final = 4
CONTEXTS_READ: Final = 20

FAILING: Final = "failing"
"""A kind of run whose function raises."""
CALLED: Final = "called"
"""A kind that threads work on by themselves, through the API."""
STARTED: Final = (*KINDS, *KINDS, FAILING)

READ: Final = "read"
CALLS: Final = "called"


class JobFailed(Exception):
    """The error of a job that is made to fail."""


def fail(claim: rj.Claim) -> State:
    """Record a run step, and raise."""
    if not claim.lease.progress.ordinal:
        claim.lease.record_step("vain", "effort")
    raise JobFailed("as it was meant to")


def _worker(name: str, setting: Setting) -> None:
    functions = {**dict.fromkeys(KINDS, work), FAILING: fail}
    with opened(name, setting) as journal:
        rj.Worker(journal, name, functions, drain_s=DRAIN_S, on_event=report).run()


def _starter(name: str, setting: Setting) -> None:
    with opened(name, setting) as journal:
        open_attempts(journal, name, STARTED)


def _reader(name: str, setting: Setting) -> None:
    """Query what an operator and an auditor query, through the API and on the command line."""
    stop = asked_to_end()
    with opened(name, setting) as journal:
        while not stop.wait(READ_PAUSE_S):
            with _reporting():
                _read(journal, name, setting)
                report(f"{READ} round")
            # A journal that is opened for one command is a cycle of objects. Garbage of several MB
            # comes together before Python collects its oldest generation; only what is kept counts.
            gc.collect()


def _read(journal: rj.Journal, name: str, setting: Setting) -> None:
    journal.status()
    journal.quarantined()
    journal.dispatch_ready()
    known = journal.contexts(limit=CONTEXTS_READ)
    if not known:
        return
    attempt_id = random.choice(known).attempt_id  # noqa: S311 - any will do
    for entry in journal.history(attempt_id):
        journal.recovery(attempt_id, version=entry.event.originator_version)
        journal.dispatch_ready(at=entry.position)
    options = ["--dsn", setting.dsn_of(name), "--schema", setting.schema]
    for command in (["history", attempt_id], ["show", attempt_id], ["ready"], ["status"]):
        done = CliRunner().invoke(app, [*options, *command])
        if done.exit_code:
            report(f"{command[0]}: exit code {done.exit_code}: {done.output}")


def _caller(name: str, setting: Setting) -> None:
    """Work through the API from several threads at once, which come and go."""
    stop = asked_to_end()
    with opened(name, setting) as journal:
        while not stop.wait(CALL_PAUSE_S):
            with ThreadPoolExecutor(THREADS) as threads:
                names = [f"{name}-{no}" for no in range(THREADS)]
                list(threads.map(lambda worker_id: _call(journal, worker_id), names))


def _call(journal: rj.Journal, worker_id: str) -> None:
    """One attempt from its first lease, handed back on the way, to its end - and any that was lost
    because this process had no time for it."""
    attempt_id = f"called-{uuid4().hex}"
    with _reporting():
        run = Run.of(attempt_id)
        lease = journal.acquire(
            attempt_id=attempt_id,
            run_id=f"run of {attempt_id}",
            worker_id=worker_id,
            kind=CALLED,
            input=run.input,
        )
        lease.begin_step(step_name(1))
        lease.record_step(step_name(1), output(run.seed, step_name(1)))
        lease.heartbeat()
        lease.checkpoint({"done": 1})
        lease.hand_back("as an example")
    with _reporting():
        for claim in journal.claim(worker_id=worker_id, kinds=[CALLED], limit=THREADS):
            claim.lease.complete(claim.state)
            journal.result(claim.lease.attempt_id)
            report(f"{CALLS} and completed")


@contextmanager
def _reporting() -> Iterator[None]:
    """Report a lost lease or a busy server, and continue."""
    try:
        yield
    except (rj.LeaseLost, rj.Retry) as problem:
        report(problem)


STEADY_WORKERS: Final = 4
"""The others are relieved repeatedly."""

PARTS: Final[Mapping[Role, tuple[int, Part]]] = {
    Role.WORKER: (STEADY_WORKERS + 2, _worker),
    Role.SWEEPER: (2, sweep),
    Role.FOLLOWER: (2, follow),
    Role.STARTER: (1, _starter),
    Role.REBUILDER: (1, partial(rebuild, pause_s=REBUILD_PAUSE_S)),
    Role.READER: (1, _reader),
    Role.CALLER: (1, _caller),
}
"""How many processes play each part."""


LEAK_PAUSE_S: Final = 0.2
PIECE_BYTES: Final = 512 * 1024
CONNECTION_LIMIT: Final = 100  # the fleet needs some as well


class Leak(StrEnum):
    """A resource that is never released."""

    MEMORY = "memory"
    FILES = "files"
    CONNECTIONS = "connections"


LEAKS: Final[Mapping[Leak, tuple[Role, Callable[[str], object]]]] = {
    Leak.MEMORY: (Role.FOLLOWER, lambda _dsn: b"x" * PIECE_BYTES),
    Leak.FILES: (Role.READER, lambda _dsn: os.open(os.devnull, os.O_RDONLY)),
    Leak.CONNECTIONS: (Role.CALLER, lambda dsn: psycopg.connect(dsn, autocommit=True)),
}
"""The role whose processes leak it, and the function that leaks one more piece of it."""


def with_leaks(leaks: Sequence[Leak]) -> dict[Role, tuple[int, Part]]:
    """The parts of a soak, some of them leaking."""
    parts = dict(PARTS)
    for leak in leaks:
        role, piece = LEAKS[leak]
        count, part = parts[role]
        parts[role] = (count, partial(_play_leaking, part, piece))
    return parts


def _play_leaking(part: Part, piece: Callable[[str], object], name: str, setting: Setting) -> None:
    """Leak beside what the part does."""
    threading.Thread(target=_leak, args=(piece, setting.dsn_of(name)), daemon=True).start()
    part(name, setting)


def _leak(piece: Callable[[str], object], dsn: str) -> None:
    pieces: list[object] = []
    while len(pieces) < CONNECTION_LIMIT:
        pieces.append(piece(dsn))
        time.sleep(LEAK_PAUSE_S)
    threading.Event().wait()
