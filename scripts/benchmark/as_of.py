"""What the dispatch-ready list held at random past positions and times, as a user asks for it.

The reference is the same question put to the same table without its index: every row is looked
at. Times are those of whole calls, with looking up what the position or time means.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.moments import MOMENTS
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.synthetic_log import fill

QUESTIONS: Final = 200
NAIVE_QUESTIONS: Final = 10
PAGE: Final = 20
ALL: Final = 10_000
BYTES_PER_MB: Final = 1_000_000

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
SELECT (SELECT count(*) FROM projection_dispatch_ready) AS row_count,
    pg_relation_size('projection_dispatch_ready__as_of') AS index_bytes
"""


def measure_as_of(dsn: str, *, event_count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of looking back into a log of so many events; of each round, 200 questions."""
    with fresh_schema(dsn) as database:
        fill(dsn, database.schema, event_count=event_count)
        journal = Journal(database)  # the database is not its own to close
        rebuild = Rebuild(database, journal.reader, projections=(DISPATCH_READY, MOMENTS))
        report = rebuild.run()
        chance = random.Random(event_count)  # noqa: S311 - nothing secret depends on it
        return {
            "case": "as-of",
            "unit": "ms",
            "events": event_count,
            "rounds": rounds,
            "index_build_s": round(report.as_of_s, 3),
            **_sizes(database),
            **_measured(journal, chance, rounds),
        }


def _measured(journal: Journal, chance: random.Random, rounds: int) -> dict[str, Any]:
    last = journal.reader.last_position()
    positions = [chance.randrange(1, last + 1) for _ in range(QUESTIONS * rounds)]
    first_at, last_at = journal.time_of(1), journal.time_of(last)
    assert first_at is not None
    assert last_at is not None
    spread_s = (last_at - first_at).total_seconds()
    times = [first_at + timedelta(seconds=chance.random() * spread_s) for _ in positions]
    held = [len(journal.dispatch_ready(at=it, limit=ALL)) for it in positions[:QUESTIONS]]
    page = _each_ms(lambda it: journal.dispatch_ready(at=it, limit=PAGE), positions)
    naive = _each_ms(lambda it: _naive(journal.database, it), positions[:NAIVE_QUESTIONS])
    return {
        "held": round(statistics.mean(held)),
        **_shares("page", page),
        **_shares("all", _each_ms(lambda it: journal.dispatch_ready(at=it, limit=ALL), positions)),
        **_shares("time", _each_ms(lambda it: journal.dispatch_ready(at=it, limit=PAGE), times)),
        **_shares("position_at", _each_ms(journal.position_at, times)),
        "naive_p50": round(statistics.median(naive), 2),
        "ratio_naive": round(statistics.median(naive) / statistics.median(page), 1),
    }


def _each_ms(ask: Callable[[Any], object], of: Sequence[object]) -> list[float]:
    ask(of[0])  # connects and prepares
    milliseconds = []
    for one in of:
        begun = time.perf_counter()
        ask(one)
        milliseconds.append(1000 * (time.perf_counter() - begun))
    return milliseconds


def _shares(name: str, milliseconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        f"{name}_p50": round(statistics.median(ordered), 2),
        f"{name}_p99": round(ordered[len(ordered) * 99 // 100], 2),
    }


def _naive(database: Database, position: int) -> None:
    with database.cursor() as cursor:
        cursor.execute(NAIVE, {"position": position, "limit": PAGE}, prepare=True).fetchone()


def _sizes(database: Database) -> dict[str, Any]:
    with database.cursor() as cursor:
        row = cursor.execute(SIZES).fetchone()
    assert row is not None
    return {"rows": row["row_count"], "index_mb": round(row["index_bytes"] / BYTES_PER_MB, 1)}
