"""The time of a cohort and of a claim: the server's by statement, Python's by part.

One process does it all, so its time is waiting plus Python. It is done three times, each time on a
fresh lost fleet: to become warm; with the waiting timed, which costs next to nothing;
and under cProfile, which makes Python slower but says in which parts it is. Those shares are
applied to the Python time of the second.
"""

import cProfile
import pstats
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from psycopg import Connection, Cursor
from psycopg.sql import Composable

from recovery_journal.journal import Journal
from scripts.benchmark.mass_crash import CLAIM_LIMIT, LIMITS
from scripts.benchmark.measuring import fresh_schema
from scripts.histories.lost import fill_lost
from scripts.histories.rows import vacuum

TRANSACTION: Final = "BEGIN, COMMIT"
VERB: Final = re.compile(r"\s*(\w+)")
TABLE: Final = re.compile(
    r"\b(?:UPDATE|INTO|COPY|FROM)\s+(?!unnest|\()\"?([a-z]\w*)", re.IGNORECASE
)


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
    waited: defaultdict[str, float] = defaultdict(float)
    label = TRANSACTION
    execute, copy, wait = Cursor.execute, Cursor.copy, Connection.wait

    def timed_execute(self: Any, query: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        nonlocal label
        label = label_of(query)
        try:
            return execute(self, query, *given, **options)
        finally:
            label = TRANSACTION

    @contextmanager
    def timed_copy(self: Any, statement: Any, *given: Any, **options: Any) -> Iterator[Any]:  # noqa: ANN401 - likewise
        nonlocal label
        label = label_of(statement)
        try:
            with copy(self, statement, *given, **options) as rows:
                yield rows
        finally:
            label = TRANSACTION

    def timed_wait(self: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        begun = time.perf_counter()
        try:
            return wait(self, *given, **options)
        finally:
            waited[label] += time.perf_counter() - begun

    Cursor.execute, Cursor.copy = timed_execute, timed_copy  # type: ignore[method-assign]
    Connection.wait = timed_wait  # type: ignore[method-assign]
    try:
        yield waited
    finally:
        Cursor.execute, Cursor.copy = execute, copy  # type: ignore[method-assign]
        Connection.wait = wait  # type: ignore[method-assign]


TOPS: Final = ("domain", "projections", "recovery_journal")
LIBRARIES: Final = ("psycopg", "psycopg_binary", "msgspec", "eventsourcing")
WAITS: Final = frozenset({"timed_wait", "wait"})
SMALLEST_SHARE: Final = 0.01


class Part(NamedTuple):
    """One line of the table."""

    name: str
    us_per_lease: float


def profile(dsn: str, what: str, lease_count: int) -> Iterator[Part]:
    """The parts of `cohort` or `claim`, the largest first, and in the end their sum."""
    _once(dsn, what, lease_count, lambda work: work())
    waited: dict[str, float] = {}
    taken_s = 0.0

    def timed(work: Callable[[], object]) -> None:
        nonlocal taken_s
        with timed_statements() as found:
            begun = time.perf_counter()
            work()
            taken_s = time.perf_counter() - begun
        waited.update(found)

    profiler = cProfile.Profile()
    _once(dsn, what, lease_count, timed)
    _once(dsn, what, lease_count, profiler.runcall)
    python_s = taken_s - sum(waited.values())
    shares = _shares(pstats.Stats(profiler))
    parts = {f"server: {name}": seconds for name, seconds in waited.items()}
    parts |= {f"Python: {name}": share * python_s for name, share in shares.items()}
    small = {name: seconds for name, seconds in parts.items() if seconds < SMALLEST_SHARE * taken_s}
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        if name not in small:
            yield Part(name, 1e6 * seconds / lease_count)
    yield Part("everything smaller", 1e6 * sum(small.values(), 0.0) / lease_count)
    yield Part("together", 1e6 * taken_s / lease_count)


def table(what: str, lease_count: int, parts: list[Part]) -> str:
    """As Markdown."""
    together = parts[-1].us_per_lease
    lines = [f"| {what} of {lease_count:,} leases | µs per lease | share |", "|---|---:|---:|"]
    lines += [
        f"| {part.name} | {part.us_per_lease:.1f} | {part.us_per_lease / together:.0%} |"
        for part in parts
    ]
    return "\n".join(lines) + "\n"


def _once(
    dsn: str, what: str, lease_count: int, run: Callable[[Callable[[], object]], object]
) -> None:
    with fresh_schema(dsn) as database:
        fill_lost(database, lease_count)
        journal = Journal(database, limits=LIMITS)
        journal.reader.last_position()  # connects
        if what == "claim":
            _sweep(journal)
            vacuum(database, "leases", "projection_dispatch_ready")
            run(lambda: _claim(journal, lease_count))
        else:
            run(lambda: _sweep(journal))


def _sweep(journal: Journal) -> None:
    while journal.sweep():
        pass


def _claim(journal: Journal, lease_count: int) -> None:
    claimed = 0
    while claims := journal.claim(worker_id="w-1", limit=CLAIM_LIMIT):
        claimed += len(claims)
    assert claimed == lease_count, claimed


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
    is_waiting = function in WAITS or ("psycopg_binary" in function and "wait" in function)
    if is_waiting and ("psycopg" in f"{file}{function}" or function == "timed_wait"):
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
