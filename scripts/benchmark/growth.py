"""What a sweep, a claim, a history and `show` take in journals of different lengths.

A journal of each length is grown first; then they are measured in turns, so that whatever else
the machine does weighs on all of them. Fresh attempts are lost in each, swept and claimed, and
then completed; histories and `show` are those of attempts from anywhere in its log. `history` is
the first look at such an attempt, which may come from the disk, and `history_again` the second.
`sweep_idle` is a sweep that finds nothing: sweepers do that all day.

`scattered` is the share of fresh events that the server put into room left on an old page, which
is anywhere in the log: cheap in memory, not so where that page has to be read first.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from typer.testing import CliRunner

from recovery_journal.claiming.loading import Claim
from recovery_journal.cli.main import app
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.grown_journal import attempts_at, grow, last_position
from scripts.benchmark.lost_fleet import fill_lost

LOST: Final = 1_000
SINGLES: Final = 200
BATCH: Final = 100
QUESTIONS: Final = 200
POSITIONS: Final = 60 * QUESTIONS
"""At one in forty, such an attempt ends."""
SHOWN: Final = 60
IDLE_SWEEPS: Final = 50
LIMITS: Final = Limits(grace_s=0.0, ttl_s=600.0)
FIRST_NUMBER: Final = 1_000_000_000
"""Of the fresh attempts: their epochs are above all that the log names."""
FLAT: Final = (
    *("sweep", "sweep_idle", "claim", "claim_batch", "history", "history_again", "show"),
)

END: Final = """
SELECT coalesce(max(notification_id), 0) AS position,
    pg_relation_size('journal_events') / current_setting('block_size')::bigint AS page
FROM journal_events
"""

SCATTERED: Final = """
SELECT avg(((ctid::text::point)[0] < %(page)s - 1)::integer)::float8 AS share
FROM journal_events
WHERE notification_id > %(position)s
"""

COUNTS: Final = """
SELECT (SELECT count(*) FROM leases) AS leases,
    (SELECT count(*) FROM projection_recovery_contexts) AS recoveries,
    pg_total_relation_size('journal_events') / 1000000 AS log_mb
"""


def measure_growth(
    dsn: str, *, event_counts: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """Medians in milliseconds at each length of the log, the shortest first, and how they
    compare."""
    with ExitStack() as schemas:
        grown = {}
        for event_count in sorted(event_counts):
            _say(f"a log of {event_count:,} events is written")
            grown[event_count] = _Grown(schemas.enter_context(fresh_schema(dsn)))
            grow(dsn, grown[event_count].database, event_count)
        for number in range(rounds):
            _say(f"round {number + 1} of {rounds}")
            for one in list(grown.values())[:: 1 if number % 2 == 0 else -1]:
                one.add_round(dsn)
        shortest = grown[min(event_counts)].medians()
        for event_count, one in grown.items():
            median = one.medians()
            yield {
                "case": "growth",
                "unit": "ms",
                "events": event_count,
                "rounds": rounds,
                **one.counts,
                "swept": LOST,
                "batch": BATCH,
                "scattered": round(statistics.fmean(one.scattered), 3),
                **{name: round(taken, 2) for name, taken in median.items()},
                **{f"ratio_{name}": round(median[name] / shortest[name], 3) for name in FLAT},
            }


class _Grown:
    """A journal that has grown, and what was measured in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.counts: dict[str, Any] = {}
        self.scattered: list[float] = []
        self._fresh = FIRST_NUMBER
        self._times: dict[str, list[float]] = {name: [] for name in FLAT}

    def add_round(self, dsn: str) -> None:
        """Measure each call once more."""
        self.counts = self.counts or self._asked(COUNTS)
        end = self._asked(END)
        _measure(dsn, self.database, self._fresh, self._times)
        self.scattered.append(self._asked(SCATTERED, end)["share"])
        self._fresh += LOST

    def _asked(self, question: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
        with self.database.cursor() as cursor:
            row = cursor.execute(question, values).fetchone()
        assert row is not None
        return row

    def medians(self) -> dict[str, float]:
        """Of each call, in milliseconds."""
        return {name: statistics.median(found) for name, found in self._times.items()}


def _measure(dsn: str, database: Database, first: int, times: dict[str, list[float]]) -> None:
    """One round: the times of each call, in milliseconds."""
    journal = Journal(database, limits=LIMITS)
    chance = random.Random(first)  # noqa: S311 - nothing secret depends on it
    last = last_position(database)
    attempts = attempts_at(
        database, [chance.randrange(1, last + 1) for _ in range(POSITIONS)], limit=QUESTIONS
    )
    with database.cursor() as cursor:  # as autovacuum would have, of what the last round left
        cursor.execute("VACUUM (ANALYZE) leases")
    times["sweep_idle"] += [_ms(_require_nothing, journal) for _ in range(IDLE_SWEEPS)]
    fill_lost(database, LOST, first=first)
    times["sweep"].append(_ms(journal.sweep))
    claims: list[Claim] = []
    for _ in range(SINGLES):
        times["claim"].append(_ms(lambda: claims.extend(journal.claim(worker_id="w-1"))))
    while len(claims) < LOST:
        times["claim_batch"].append(
            _ms(lambda: claims.extend(journal.claim(worker_id="w-1", limit=BATCH)))
        )
    for look in ("history", "history_again"):
        times[look] += [_ms(journal.history, attempt_id) for attempt_id in attempts]
    times["show"] += [_ms(_show, dsn, database.schema, one) for one in attempts[:SHOWN]]
    for claim in claims:
        claim.lease.complete()


def _ms(call: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - begun)


def _require_nothing(journal: Journal) -> None:
    assert not journal.sweep()


def _show(dsn: str, schema: str, attempt_id: str) -> None:
    """The whole command, from connecting to printing, without the start of Python."""
    done = CliRunner().invoke(app, ["--dsn", dsn, "--schema", schema, "show", attempt_id])
    assert done.exit_code == 0, done.output


def _say(text: str) -> None:
    sys.stderr.write(f"growth: {text}\n")
