"""A rebuild of recovery contexts and dispatch-ready list, beside its references."""

import multiprocessing
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

from recovery_journal.log.block import LogBlocks
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record
from recovery_journal.read_models.rebuild.processes import Count, side_by_side
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from scripts.benchmark.library import PROJECTIONS, run_library
from scripts.benchmark.measuring import BYTES_PER_MB, Line, Rounds, fresh_schema, one_row, say
from scripts.benchmark.processes import run_apart, run_watched
from scripts.histories.log import fill, fill_one_stream

EVENTS: Final = (1_000_000,)
MANY_EVENTS: Final = 10_000_000
"""With so many, one round says enough, and lasts long enough."""
STOCK_SAMPLE: Final = 10_000

DESCRIBE: Final = """
SELECT
    (
        SELECT avg(octet_length(state))
        FROM journal_events
        WHERE notification_id <= 10000
    )::integer AS event_bytes,
    pg_total_relation_size('journal_events') AS log_bytes
"""


def measure_rebuild(dsn: str, options: Namespace) -> Iterator[Line]:
    """Two projections rebuilt from a log. `ratio_stock` is how many times more events a second than
    the library's runner; `ratio_read_decode` our time over that of merely reading.

    All on the same log and server, each in a fresh process, in turns; the median of the rounds
    counts. `ours` is a rebuild as a user starts it, from the splitting of the log to the switch.
    `read_decode` merely reads and decodes the log stream by stream, with as many processes and the
    same reader; `read_in_order` does so in the log's order, which folds of streams cannot use.
    `stock` is the library's runner, on a sample from the log's beginning. With one stream, all
    events are those of one attempt, whose stream no two processes can share.
    """
    for event_count in options.events or EVENTS:
        with fresh_schema(dsn) as database:
            say("rebuild", f"writing {event_count:,} events")
            write = fill_one_stream if options.one_stream else fill
            write(dsn, database.schema, event_count=event_count)
            yield _measured(dsn, database, options, event_count)


def _measured(dsn: str, database: Database, options: Namespace, event_count: int) -> Line:
    process_count = options.processes or os.cpu_count() or 1
    sample = min(STOCK_SAMPLE, event_count)
    log = one_row(database, DESCRIBE)
    whole = (dsn, database.schema, event_count, process_count)
    ours = (rebuild, dsn, database.schema, process_count)
    references: dict[str, Callable[[], float]] = {
        "read_decode": partial(run_apart, read_streams, *whole),
        "read_in_order": partial(run_apart, read_positions, *whole),
        "stock": partial(run_apart, run_library, dsn, database.schema, sample),
    }
    # Its time does not count: memory is sampled all the while, and pages are read first.
    peak_mb = run_watched(*ours).peak_mb
    rounds = Rounds("rebuild", "s", options.rounds or (1 if event_count >= MANY_EVENTS else 3))
    for number in rounds:
        names = ["ours", *references]
        for name in names if number % 2 == 0 else reversed(names):
            if name in references:
                rounds.add(name, references[name]())
            else:
                seconds, index_s = run_apart(*ours)
                rounds.add("ours", seconds)
                rounds.add("as_of_index", index_s)
    median = rounds.medians()
    ours_s, read_s, in_order_s = (median[it] for it in ("ours", "read_decode", "read_in_order"))
    rate, stock = event_count / ours_s, sample / median["stock"]
    return {
        "events": event_count,
        "streams": "one" if options.one_stream else "many",
        "event_bytes": log["event_bytes"],
        "log_mb": round(log["log_bytes"] / BYTES_PER_MB),
        "cores": os.cpu_count(),
        "processes": process_count,
        "rounds": rounds.count,
        "ours": round(rate),
        "ours_s": round(ours_s, 3),
        "us_per_event": round(1e6 / rate, 3),
        "as_of_index_s": round(median["as_of_index"], 3),
        "stock": round(stock),
        "stock_sample": sample,
        "read_decode": round(event_count / read_s),
        "read_decode_s": round(read_s, 3),
        "read_in_order_s": round(in_order_s, 3),
        "ratio_stock": round(rate / stock, 1),
        "ratio_read_decode": round(ours_s / read_s, 3),
        "ratio_read_in_order": round(ours_s / in_order_s, 3),
        "peak_mb": peak_mb,
    }


def rebuild(dsn: str, schema: str, process_count: int) -> tuple[float, float]:
    """One rebuild, as the command does it: the seconds until its switch, and of the index that it
    built afterwards."""
    database = Database(dsn, schema)
    reader = SettledReader(database)
    begun = time.perf_counter()
    report = Rebuild(database, reader, projections=PROJECTIONS, process_count=process_count).run()
    seconds = time.perf_counter() - begun
    database.close()
    return seconds - report.as_of_s, report.as_of_s


RANGES_PER_PROCESS: Final = 16
"""As many as in a rebuild, so that none of the processes is idle for long at the end."""

Read: TypeAlias = Callable[[LogBlocks, int, int], Iterator[list[Record]]]
"""Is given a range of positions: after the one, up to the other."""


def read_streams(dsn: str, schema: str, event_count: int, process_count: int) -> float:
    """How many seconds it takes with a rebuild's own reader and processes, stream by stream: no
    rebuild that uses them can be faster."""

    def read(blocks: LogBlocks, after: int, last: int) -> Iterator[list[Record]]:
        return blocks.begun(after=after, last=last, upto=event_count)

    return _timed(dsn, schema, event_count, process_count, read=read)


def read_positions(dsn: str, schema: str, event_count: int, process_count: int) -> float:
    """Likewise in the log's own order, in which it lies on disk: which folds of streams cannot
    use, and the least that reading can cost."""

    def read(blocks: LogBlocks, after: int, last: int) -> Iterator[list[Record]]:
        return blocks.by_position(after=after, upto=last)

    return _timed(dsn, schema, event_count, process_count, read=read)


def _timed(dsn: str, schema: str, event_count: int, process_count: int, *, read: Read) -> float:
    """Seconds in which processes take ranges of positions in turn, and read them."""
    database = Database(dsn, schema, statement_s=0)
    range_events = event_count // (process_count * RANGES_PER_PROCESS) + 1
    taken = multiprocessing.get_context("fork").Value("q", 0)
    read_counts = [0]

    def work(_no: int, count: Count) -> None:
        while True:
            with taken.get_lock():
                after: int = taken.value
                taken.value += range_events
            if after >= event_count:
                return
            with database.transaction():
                last = min(after + range_events, event_count)
                for block in read(LogBlocks(database), after, last):
                    count(len(block))

    begun = time.perf_counter()
    side_by_side(work, process_count, read_counts.append)
    seconds = time.perf_counter() - begun
    database.close()
    assert read_counts[-1] == event_count, f"read {read_counts[-1]} of {event_count} events"
    return seconds
