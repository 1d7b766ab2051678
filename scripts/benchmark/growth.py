"""A sweep, a claim, a history and `show` in journals of different lengths."""

import random
import statistics
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from typer.testing import CliRunner

import recovery_journal as rj
from recovery_journal.cli.main import app
from recovery_journal.postgres.database import Database
from scripts.benchmark.measuring import Line, Rounds, fresh_schema, ms_of, one_row, say
from scripts.histories.lost import fill_lost
from scripts.histories.rows import attempts_at, grow

EVENTS: Final = (10_000, 100_000, 1_000_000)
LOST: Final = 1_000
SINGLES: Final = 200
BATCH: Final = 100
QUERIES: Final = 200
POSITIONS: Final = 60 * QUERIES
"""At one in forty, such an attempt ends."""
SHOWN: Final = 60
IDLE_SWEEPS: Final = 50
LIMITS: Final = rj.Limits(grace_s=0.0, ttl_s=600.0)
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


def measure_growth(dsn: str, options: Namespace) -> Iterator[Line]:
    """Medians in milliseconds in journals of different lengths, and their ratios to those in the
    shortest. `sweep` recovers 1,000 leases, `sweep_idle` finds none; `history` is the first read of
    an attempt from anywhere in the log, `history_again` the second, which finds it in memory.
    `scattered` is the share of fresh events that the server put into room left on old pages.

    A journal of each length is grown first; then they are measured in turns, so that other work of
    the machine weighs on all of them. Fresh attempts are lost in each, swept and claimed, and then
    completed. Room on an old page is cheap in memory, not so where that page has to be read first.
    """
    event_counts = sorted(options.events or EVENTS)
    round_count = options.rounds or 5
    with ExitStack() as schemas:
        grown = {}
        for event_count in event_counts:
            say("growth", f"a log of {event_count:,} events is written")
            grown[event_count] = _Grown(schemas.enter_context(fresh_schema(dsn)))
            grow(dsn, grown[event_count].database, event_count)
        for number in range(round_count):
            say("growth", f"round {number + 1} of {round_count}")
            for one in list(grown.values())[:: 1 if number % 2 == 0 else -1]:
                one.add_round(dsn)
        shortest = grown[event_counts[0]].found.medians()
        for event_count, one in grown.items():
            median = one.found.medians()
            yield {
                "events": event_count,
                "rounds": round_count,
                **one.counts,
                "swept": LOST,
                "batch": BATCH,
                "scattered": round(statistics.fmean(one.scattered), 3),
                **{name: round(taken, 2) for name, taken in median.items()},
                **{f"ratio_{name}": round(median[name] / shortest[name], 3) for name in FLAT},
            }


class _Grown:
    """A journal that has grown, and the times of calls in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.counts: dict[str, Any] = {}
        self.scattered: list[float] = []
        self._fresh = FIRST_NUMBER
        self.found = Rounds("growth", "ms")

    def add_round(self, dsn: str) -> None:
        """Measure each call in turn."""
        self.counts = self.counts or one_row(self.database, COUNTS)
        end = one_row(self.database, END)
        self._measure(dsn, end["position"])
        self.scattered.append(one_row(self.database, SCATTERED, **end)["share"])
        self._fresh += LOST

    def _measure(self, dsn: str, last: int) -> None:
        journal, found = rj.Journal(self.database, limits=LIMITS), self.found
        chance = random.Random(self._fresh)  # noqa: S311 - nothing secret depends on it
        positions = [chance.randrange(1, last + 1) for _ in range(POSITIONS)]
        attempts = attempts_at(self.database, positions, limit=QUERIES)
        with self.database.cursor() as cursor:  # as autovacuum would have, after the last round
            cursor.execute("VACUUM (ANALYZE) leases")
        assert not journal.sweep()
        for _ in range(IDLE_SWEEPS):
            found.add("sweep_idle", ms_of(journal.sweep))
        fill_lost(self.database, LOST, first=self._fresh)
        found.add("sweep", ms_of(journal.sweep))
        claims: list[rj.Claim] = []

        def claim(limit: int = 1) -> None:
            claims.extend(journal.claim(worker_id="w-1", limit=limit))

        found.add("claim", *(ms_of(claim) for _ in range(SINGLES)))
        while len(claims) < LOST:
            found.add("claim_batch", ms_of(claim, BATCH))
        for read in ("history", "history_again"):
            found.add(read, *(ms_of(journal.history, attempt_id) for attempt_id in attempts))
        schema = self.database.schema
        found.add("show", *(ms_of(_show, dsn, schema, one) for one in attempts[:SHOWN]))
        for one in claims:
            one.lease.complete()


def _show(dsn: str, schema: str, attempt_id: str) -> None:
    """The whole command, from connecting to printing, without the start of Python."""
    done = CliRunner().invoke(app, ["--dsn", dsn, "--schema", schema, "show", attempt_id])
    assert done.exit_code == 0, done.output
