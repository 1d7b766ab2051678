"""Journals that grow: calls in logs of different lengths; tables whose rows change repeatedly."""

import random
import statistics
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from typer.testing import CliRunner

import recovery_journal as rj
from recovery_journal.cli.main import app
from recovery_journal.postgres.database import Database
from scripts.benchmark.mass_crash import connected
from scripts.benchmark.measuring import (
    BYTES_PER_MB,
    Line,
    Rounds,
    fresh_schema,
    ms_of,
    one_row,
    say,
)
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
        journal, found = connected(self.database), self.found
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


LEASES: Final = 500
HEARTBEATS: Final = 5
"""Of each lease, between two losses."""
WORKER: Final = "w-1"
CHURN_LIMITS: Final = rj.Limits(
    grace_s=0.0,
    ttl_s=600.0,
    policy=rj.Policy(crash_loop_count=1_000_000),  # no attempt makes progress
)
WATCHED: Final = ("leases", "projection_dispatch_ready", "projection_tracking")

# Autovacuum would make the same run end otherwise, once a minute.
NO_VACUUM: Final = "ALTER TABLE {table} SET (autovacuum_enabled = false)"

SIZES: Final = """
SELECT pg_relation_size('leases') AS leases,
    pg_indexes_size('leases') AS lease_indexes,
    pg_relation_size('projection_dispatch_ready') AS list,
    pg_indexes_size('projection_dispatch_ready') AS list_indexes
"""

UPDATES: Final = """
SELECT pg_stat_get_tuples_updated('leases'::regclass) AS updates,
    pg_stat_get_tuples_hot_updated('leases'::regclass) AS hot_updates
"""


def measure_churn(dsn: str, options: Namespace) -> Iterator[Line]:
    """The same leases renewed, lost and claimed repeatedly: the sizes of the tables in MB without
    any vacuum, and the share of updates that change no index.

    No vacuum comes in between, as if it were late. So all growth is dead versions of rows, and the
    only thing that keeps a table small is room for the next version of a row on its page.
    """
    with fresh_schema(dsn) as database:
        with database.cursor() as cursor:
            for table in WATCHED:
                cursor.execute(NO_VACUUM.format(table=table).encode())
        fill_lost(database, LEASES)
        journal = rj.Journal(database, limits=CHURN_LIMITS)
        before = _sizes(database)
        heartbeats: Counter[str] = Counter()
        recoveries: Counter[str] = Counter()
        for _ in range(options.recoveries):
            with _counting(database, recoveries):
                while journal.sweep():
                    pass
                claims = journal.claim(worker_id=WORKER, limit=LEASES)
                assert len(claims) == LEASES, len(claims)
            with _counting(database, heartbeats):
                for _ in range(HEARTBEATS):
                    for claim in claims:
                        claim.lease.heartbeat()
            journal.report_lost(worker_id=WORKER, reason="churn")
        after = _sizes(database)
        yield {
            "rows": LEASES,
            "recoveries": LEASES * options.recoveries,
            "heartbeats": LEASES * HEARTBEATS * options.recoveries,
            "hot_share_heartbeats": _hot_share(heartbeats),
            "hot_share_recoveries": _hot_share(recoveries),
            "leases_before": before["leases"],
            "leases_after": after["leases"],
            "lease_indexes_before": before["lease_indexes"],
            "lease_indexes_after": after["lease_indexes"],
            "list_after": after["list"],
            "list_indexes_after": after["list_indexes"],
        }


@contextmanager
def _counting(database: Database, counts: Counter[str]) -> Iterator[None]:
    """Count the updates of lease rows within."""
    counts.subtract(_updates(database))
    yield
    counts.update(_updates(database))


def _updates(database: Database) -> dict[str, int]:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    return one_row(database, UPDATES)


def _hot_share(counts: Counter[str]) -> float:
    return round(counts["hot_updates"] / max(counts["updates"], 1), 3)


def _sizes(database: Database) -> dict[str, Any]:
    found = one_row(database, SIZES)
    return {name: round(size / BYTES_PER_MB, 2) for name, size in found.items()}
