"""Readers of the log: a check for gaps at its head, and the list at past positions and times."""

import random
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from recovery_journal.journal import Journal
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database, one
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.moments import MOMENTS
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from scripts.benchmark.claim_script import STATE, TAG
from scripts.benchmark.measuring import (
    BYTES_PER_MB,
    Line,
    fresh_schema,
    ms_of,
    one_row,
    percentiles,
)
from scripts.benchmark.rebuild import EVENTS, MANY_EVENTS
from scripts.histories.log import fill

CHECKS: Final = 500

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""


def measure_gap_check(dsn: str, _options: Namespace) -> Iterator[Line]:
    """One whole check for gaps at the head of the log, without writers; a rolled-back insert has
    left a gap before each. In milliseconds.

    Another insert is committed after it, so the gap is below the newest event; the reader queries
    which transactions write, and settles it.
    """
    with fresh_schema(dsn) as database:
        reader = SettledReader(database)
        # Of another connection: psycopg forgets its prepared statements at a rollback.
        writer = Database(dsn, database.schema)
        times_ms = []
        for number in range(CHECKS):
            head = _leave_gap(writer, f"gap-{uuid4().hex[:8]}-{number}")
            begun = time.perf_counter()
            settled = reader.settled_position()
            times_ms.append((time.perf_counter() - begun) * 1000)
            assert settled == head, f"settled up to {settled}, the head is {head}: another writes"
        writer.close()
    found = percentiles(times_ms, {"p50": 50, "p99": 99}, digits=3)
    yield {"checks": CHECKS, **found}


def _leave_gap(writer: Database, stream: str) -> int:
    connection = writer.connection()
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT, (f"{stream}-lost", 1, TAG, STATE))
    return int(one(connection.execute(INSERT, (stream, 1, TAG, STATE)))["notification_id"])


QUERIES: Final = 200
NAIVE_QUERIES: Final = 10
PAGE: Final = 20
ALL: Final = 10_000

NAIVE: Final = """
SELECT coalesce(json_agg(page), '[]')::text AS rows
FROM (
    SELECT *
    FROM projection_dispatch_ready
    WHERE entered_position <= %(position)s
        AND (left_position IS NULL OR left_position > %(position)s)
    ORDER BY priority DESC, ready_at, attempt_id
    LIMIT %(limit)s
) AS page
"""

SIZES: Final = """
SELECT (SELECT count(*) FROM projection_dispatch_ready) AS rows,
    pg_relation_size('projection_dispatch_ready__as_of') AS index_bytes
"""


def measure_as_of(dsn: str, options: Namespace) -> Iterator[Line]:
    """The dispatch-ready list at a past position or time, in milliseconds; `ratio_naive` is the
    time without its index over ours.

    Times are those of whole calls, with the query for the meaning of a position or time; of each
    round, 200 queries. The reference is the same query on the same table without its index.
    """
    for event_count in options.events or EVENTS:
        round_count = options.rounds or (1 if event_count >= MANY_EVENTS else 3)
        with fresh_schema(dsn) as database:
            fill(dsn, database.schema, event_count=event_count)
            journal = Journal(database)  # the database is not its own to close
            rebuild = Rebuild(database, journal.reader, projections=(DISPATCH_READY, MOMENTS))
            report = rebuild.run()
            sizes = one_row(database, SIZES)
            chance = random.Random(event_count)  # noqa: S311 - nothing secret depends on it
            yield {
                "events": event_count,
                "rounds": round_count,
                "index_build_s": round(report.as_of_s, 3),
                "rows": sizes["rows"],
                "index_mb": round(sizes["index_bytes"] / BYTES_PER_MB, 1),
                **_measured(journal, chance, round_count),
            }


def _measured(journal: Journal, chance: random.Random, round_count: int) -> dict[str, Any]:
    last = journal.reader.last_position()
    positions = [chance.randrange(1, last + 1) for _ in range(QUERIES * round_count)]
    first_at, last_at = journal.time_of(1), journal.time_of(last)
    assert first_at is not None
    assert last_at is not None
    spread_s = (last_at - first_at).total_seconds()
    times = [first_at + timedelta(seconds=chance.random() * spread_s) for _ in positions]
    held = [len(journal.dispatch_ready(at=it, limit=ALL)) for it in positions[:QUERIES]]

    def page(at: Any) -> object:  # noqa: ANN401 - a position or a time
        return journal.dispatch_ready(at=at, limit=PAGE)

    timed: dict[str, tuple[Callable[[Any], object], Sequence[object]]] = {
        "page": (page, positions),
        "all": (lambda it: journal.dispatch_ready(at=it, limit=ALL), positions),
        "time": (page, times),
        "position_at": (journal.position_at, times),
    }
    taken_ms = {name: _each_ms(*call) for name, call in timed.items()}
    naive_ms = statistics.median(
        _each_ms(lambda it: _naive(journal.database, it), positions[:NAIVE_QUERIES])
    )
    line: dict[str, Any] = {"held": round(statistics.mean(held))}
    for name, found in taken_ms.items():
        line |= percentiles(found, {f"{name}_p50": 50, f"{name}_p99": 99})
    return {
        **line,
        "naive_p50": round(naive_ms, 2),
        "ratio_naive": round(naive_ms / statistics.median(taken_ms["page"]), 1),
    }


def _each_ms(call: Callable[[Any], object], arguments: Sequence[object]) -> list[float]:
    call(arguments[0])  # connects and prepares
    return [ms_of(call, argument) for argument in arguments]


def _naive(database: Database, position: int) -> None:
    with database.cursor() as cursor:
        cursor.execute(NAIVE, {"position": position, "limit": PAGE}, prepare=True).fetchone()
