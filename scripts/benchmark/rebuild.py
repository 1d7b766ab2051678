"""A rebuild of recovery contexts and dispatch-ready list, beside its references.

All on the same log and server, each in a fresh process, in turns; the median of the rounds
counts. `ours` is a rebuild as a user starts it, from the splitting of the log to the switch.
`read_decode` merely reads and decodes the log stream by stream, with as many processes and the
same reader; `read_in_order` does so in the log's order, which folds of streams cannot use.
`stock` is the library's runner, on a sample from the log's beginning.

With one stream, all events are those of one attempt, whose stream no two processes can share.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from scripts.benchmark.apart import run_apart, run_watched
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.library_runner import run_library
from scripts.benchmark.library_view import PROJECTIONS
from scripts.benchmark.log_reading import read_positions, read_streams
from scripts.benchmark.synthetic_log import fill, fill_one_stream

STOCK_SAMPLE: Final = 10_000
BYTES_PER_MB: Final = 1_000_000

DESCRIBE: Final = """
SELECT
    (
        SELECT avg(octet_length(state))
        FROM journal_events
        WHERE notification_id <= 10000
    )::integer AS event_bytes,
    pg_total_relation_size('journal_events') AS log_bytes
"""


class Timed(NamedTuple):
    """One rebuild: until its switch, and what it built afterwards."""

    seconds: float
    as_of_index_s: float


def measure_rebuild(
    dsn: str, *, event_count: int, rounds: int, process_count: int, is_one_stream: bool = False
) -> dict[str, Any]:
    """Seconds and events a second of a rebuild and its references, and how they compare."""
    with fresh_schema(dsn) as database:
        _say(f"writing {event_count:,} events")
        write = fill_one_stream if is_one_stream else fill
        write(dsn, database.schema, event_count=event_count)
        with database.cursor() as cursor:
            log = _described(cursor)
        measured = _Measured(dsn, database.schema, event_count, process_count)
        for number in range(rounds):
            measured.add_round(number)
        return {
            "case": "rebuild",
            "unit": "events/s",
            "events": event_count,
            "streams": "one" if is_one_stream else "many",
            **log,
            "cores": os.cpu_count(),
            "processes": process_count,
            "rounds": rounds,
            **measured.result(),
        }


class _Measured:
    """The measurements of one log, round by round."""

    def __init__(self, dsn: str, schema: str, event_count: int, process_count: int) -> None:
        self._event_count = event_count
        self._sample = min(STOCK_SAMPLE, event_count)
        whole = (dsn, schema, event_count, process_count)
        self._references: dict[str, Callable[[], float]] = {
            "read_decode": partial(run_apart, read_streams, *whole),
            "read_in_order": partial(run_apart, read_positions, *whole),
            "stock": partial(run_apart, run_library, dsn, schema, self._sample),
        }
        self._rebuild = partial(run_apart, rebuild, dsn, schema, process_count)
        self._seconds: dict[str, list[float]] = {name: [] for name in ("ours", *self._references)}
        self._as_of_index_s: list[float] = []
        # Its time does not count: memory is looked at all the while, and pages are read first.
        self._peak_mb = run_watched(rebuild, dsn, schema, process_count).peak_mb
        _say(f"a rebuild took {self._peak_mb} MB at most")

    def add_round(self, number: int) -> None:
        """Measure each once more, in the other order than before."""
        names = list(self._seconds)
        for name in names if number % 2 == 0 else reversed(names):
            self._seconds[name].append(self._measure(name))
        newest = ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in self._seconds.items())
        _say(f"round {number + 1}: {newest} (stock: {self._sample:,} events)")

    def result(self) -> dict[str, Any]:
        """The medians, and what follows from them."""
        median = {name: statistics.median(seconds) for name, seconds in self._seconds.items()}
        ours_s, read_s, in_order_s = (
            median[name] for name in ("ours", "read_decode", "read_in_order")
        )
        ours, stock = self._event_count / ours_s, self._sample / median["stock"]
        return {
            "ours": round(ours),
            "ours_s": round(ours_s, 3),
            "us_per_event": round(1e6 / ours, 3),
            "as_of_index_s": round(statistics.median(self._as_of_index_s), 3),
            "stock": round(stock),
            "stock_sample": self._sample,
            "read_decode": round(self._event_count / read_s),
            "read_decode_s": round(read_s, 3),
            "read_in_order_s": round(in_order_s, 3),
            "ratio_stock": round(ours / stock, 1),
            "ratio_read_decode": round(ours_s / read_s, 3),
            "ratio_read_in_order": round(ours_s / in_order_s, 3),
            "peak_mb": self._peak_mb,
        }

    def _measure(self, name: str) -> float:
        if name in self._references:
            return self._references[name]()
        timed: Timed = self._rebuild()
        self._as_of_index_s.append(timed.as_of_index_s)
        return timed.seconds


def rebuild(dsn: str, schema: str, process_count: int) -> Timed:
    """One rebuild, as the command does it."""
    database = Database(dsn, schema)
    reader = JournalApplication(database).reader
    begun = time.perf_counter()
    report = Rebuild(database, reader, projections=PROJECTIONS, process_count=process_count).run()
    seconds = time.perf_counter() - begun
    database.close()
    return Timed(seconds - report.as_of_s, report.as_of_s)


def _described(cursor: Cursor[DictRow]) -> dict[str, Any]:
    row = cursor.execute(DESCRIBE).fetchone()
    assert row is not None
    return {"event_bytes": row["event_bytes"], "log_mb": round(row["log_bytes"] / BYTES_PER_MB)}


def _say(text: str) -> None:
    sys.stderr.write(f"rebuild: {text}\n")
