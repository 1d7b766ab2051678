"""The cost of a sweep and of claims, by one process alone: in all, and by part.

For the parts, it is done three times, each time on a fresh lost fleet: to become warm; with the
waiting for the server timed, which costs next to nothing; and under cProfile, which makes Python
slower but says in which parts it is. Those shares are applied to the Python time of the second.
"""

import cProfile
import os
import pstats
import re
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import getgeneratorlocals
from pathlib import PurePath
from typing import Any, Final

import psutil
from psycopg import Connection
from psycopg.sql import Composable

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from scripts.benchmark.mass_crash import CLAIM_LIMIT, LIMITS, connected
from scripts.benchmark.measuring import Line, fresh_schema, markdown_table
from scripts.benchmark.processes import processor_s
from scripts.histories.lost import fill_lost
from scripts.histories.rows import vacuum

TRANSACTION: Final = "BEGIN, COMMIT"
VERB: Final = re.compile(r"\s*(\w+)")
TABLE: Final = re.compile(
    r"\b(?:UPDATE|INTO|COPY|FROM)\s+(?!unnest|\()\"?([a-z]\w*)", re.IGNORECASE
)
TOPS: Final = ("domain", "projections", "recovery_journal")
LIBRARIES: Final = ("psycopg", "psycopg_binary", "msgspec", "eventsourcing")
SMALLEST_SHARE: Final = 0.01
PROFILES: Final = ("cohort", "claim")


def measure_budget(dsn: str, options: Namespace) -> Iterator[Line]:
    """Microseconds a lease of a sweep and of claims in batches, in Python and in the server.

    Processor time, which is the same on a busy machine but for its cold caches: that of this
    process, and that of its server process.
    """
    for lease_count in options.leases:
        with fresh_schema(dsn) as database:
            fill_lost(database, lease_count)
            journal = Journal(database, limits=LIMITS)
            budget: Line = {}
            for name, act in {"sweep": _sweep, "claim": _claim}.items():
                spent_s = _processor_s(database, partial(act, journal, lease_count))
                for side, seconds in spent_s.items():
                    budget[f"{name}_{side}_us"] = round(1e6 * seconds / lease_count, 1)
            yield {"leases": lease_count, **budget}


def profile(dsn: str, what: str, lease_count: int) -> str:
    """The parts of `cohort` or `claim`, the largest first, and at last their sum, as Markdown."""
    with _prepared(dsn, what, lease_count) as work:
        work()
    with _prepared(dsn, what, lease_count) as work, timed_statements() as waited_s:
        begun = time.perf_counter()
        work()
        taken_s = time.perf_counter() - begun
    profiler = cProfile.Profile()
    with _prepared(dsn, what, lease_count) as work:
        profiler.runcall(work)
    python_s = taken_s - sum(waited_s.values())
    parts = {f"server: {name}": seconds for name, seconds in waited_s.items()}
    for name, share in _shares(pstats.Stats(profiler)).items():
        parts[f"Python: {name}"] = share * python_s
    large = {name: spent for name, spent in parts.items() if spent >= SMALLEST_SHARE * taken_s}
    shown = dict(sorted(large.items(), key=lambda part: -part[1]))
    shown["everything smaller"] = sum(parts.values()) - sum(large.values())
    shown["together"] = taken_s
    heads = [f"{what} of {lease_count:,} leases", "µs per lease", "share"]
    rows = [
        [name, f"{1e6 * seconds / lease_count:.1f}", f"{seconds / taken_s:.0%}"]
        for name, seconds in shown.items()
    ]
    return markdown_table(heads, rows)


def label_of(statement: object) -> str:
    """A statement in two words: what it does, and to which table first of all."""
    if isinstance(statement, Composable):
        statement = statement.as_string(None)
    text = statement.decode() if isinstance(statement, bytes) else str(statement)
    text = re.sub(r"--.*", "", text)
    verb, table = VERB.match(text), TABLE.search(text)
    return " ".join(found[1] for found in (verb, table) if found)


@contextmanager
def timed_statements() -> Iterator[dict[str, float]]:
    """Within, seconds of waiting by statement, of all connections of this process. Sending and
    reading are included, because the process does nothing else meanwhile."""
    waited_s: defaultdict[str, float] = defaultdict(float)
    label = TRANSACTION
    wait = Connection.wait

    def timed_wait(self: Any, gen: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        nonlocal label
        arguments = getgeneratorlocals(gen)  # of psycopg's exchange, which has not begun
        if statement := arguments.get("query") or arguments.get("statement"):
            label = label_of(statement)
        elif "copy" not in gen.__qualname__:  # else some data of the COPY before
            label = TRANSACTION
        begun = time.perf_counter()
        try:
            return wait(self, gen, *given, **options)
        finally:
            waited_s[label] += time.perf_counter() - begun

    Connection.wait = timed_wait  # type: ignore[method-assign]
    try:
        yield waited_s
    finally:
        Connection.wait = wait  # type: ignore[method-assign]


@contextmanager
def _prepared(dsn: str, what: str, lease_count: int) -> Iterator[Callable[[], None]]:
    """A fresh lost fleet, and the work on it that is to be measured."""
    with fresh_schema(dsn) as database:
        fill_lost(database, lease_count)
        journal = connected(database)
        if what == "claim":
            _sweep(journal, lease_count)
            vacuum(database, "leases", "projection_dispatch_ready")
        yield partial(_claim if what == "claim" else _sweep, journal, lease_count)


def _sweep(journal: Journal, lease_count: int) -> None:
    done = 0
    while done < lease_count:
        done += len(journal.sweep())


def _claim(journal: Journal, lease_count: int) -> None:
    done = 0
    while done < lease_count:
        done += len(journal.claim(worker_id="new-worker", limit=CLAIM_LIMIT))


def _processor_s(database: Database, work: Callable[[], None]) -> dict[str, float]:
    """The seconds of this process and of its server process."""
    server_process = psutil.Process(database.connection().info.backend_pid)
    sides = {"python": psutil.Process(os.getpid()), "server": server_process}
    before_s = {side: processor_s([process]) for side, process in sides.items()}
    work()
    return {side: processor_s([process]) - before_s[side] for side, process in sides.items()}


def _shares(stats: pstats.Stats) -> dict[str, float]:
    """Of the time that is not waiting, by part."""
    seconds: defaultdict[str, float] = defaultdict(float)
    found: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, own_s, _, _) in found.items():
        part = _part(file, function)
        if part is not None:
            seconds[part] += own_s
    total = sum(seconds.values())
    return {part: own_s / total for part, own_s in seconds.items()}


def _part(file: str, function: str) -> str | None:
    """Ours by file, a library as a whole; None for waiting."""
    if "wait" in function and "psycopg" in f"{file}{function}":
        return None
    parts = PurePath(file).parts
    if "site-packages" in parts:
        top = parts[parts.index("site-packages") + 1]
        return top if top in LIBRARIES else "other libraries"
    for top in TOPS:
        if top in parts:
            return "/".join(parts[len(parts) - 1 - parts[::-1].index(top) :])
    for library in LIBRARIES:
        if library in function:
            return library
    return "the interpreter's own functions"
