"""A fresh journal for each measurement; medians of rounds, percentiles, times of calls."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import uuid4

from psycopg import sql

from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database, one
from recovery_journal.read_models.schema import create_projections


@contextmanager
def fresh_schema(dsn: str) -> Iterator[Database]:
    """An empty journal in a schema that is dropped afterwards. Its statements may take long."""
    with unused_schema(dsn) as database:
        schemas.create(database, partial(create_projections, database))
        yield database


@contextmanager
def unused_schema(dsn: str) -> Iterator[Database]:
    """The name of a schema that does not exist; if it is created, it is dropped afterwards."""
    database = Database(dsn, f"benchmark_{uuid4().hex[:12]}", statement_s=0)
    try:
        yield database
    finally:
        drop_schema(database)
        database.close()


def drop_schema(database: Database) -> None:
    """Remove the schema and everything in it, if it is there."""
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(database.schema))
    with database.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(drop)


def one_row(database: Database, query: str, **values: object) -> dict[str, Any]:
    """The one row of a query."""
    with database.cursor() as cursor:
        return one(cursor.execute(query.encode(), values or None))


Line: TypeAlias = dict[str, Any]
BYTES_PER_MB: Final = 1_000_000
LIMIT_S: Final = 600.0
PAUSE_S: Final = 0.002


class Rounds:
    """Measurements by name, round by round, each of which is reported on standard error."""

    def __init__(self, case: str, unit: str, count: int = 1) -> None:
        self._case = case
        self._unit = unit
        self.count = count
        self._found: dict[str, list[float]] = {}

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            yield number
            newest = ", ".join(f"{name} {found[-1]:,.2f}" for name, found in self._found.items())
            say(self._case, f"round {number + 1} of {self.count}: {newest} {self._unit}")

    def add(self, name: str, *values: float) -> None:
        """Add what was measured in this round."""
        self._found.setdefault(name, []).extend(values)

    def medians(self) -> dict[str, float]:
        """The median of each name."""
        return {name: statistics.median(found) for name, found in self._found.items()}


def percentiles(
    values: Sequence[float], percents: Mapping[str, int], *, digits: int = 2
) -> dict[str, float]:
    """Percentiles by name; 100 is the largest value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {
        name: ordered[min(len(ordered) * percent // 100, last)]
        for name, percent in percents.items()
    }
    return {name: round(value, digits) for name, value in found.items()}


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts to the left in the first column, numbers to the right in the others."""
    rule = ["---", *("---:" for _ in heads[1:])]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]
    return "\n".join(lines) + "\n"


def ms_of(call: Callable[..., object], *arguments: object) -> float:
    """The milliseconds that a call takes."""
    begun = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - begun)


def wait_until(is_so: Callable[[], bool], what: str, *, pause_s: float = PAUSE_S) -> None:
    """Wait for something. Raises `TimeoutError`."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {LIMIT_S:g} s for {what}")
        time.sleep(pause_s)


def say(case: str, text: str) -> None:
    """Report progress on standard error; standard output belongs to the lines."""
    sys.stderr.write(f"{case}: {text}\n")
