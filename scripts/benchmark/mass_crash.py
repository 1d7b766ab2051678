"""A mass crash: many leases lost at once, recovered by sweepers and claimed by new workers."""

import multiprocessing
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from typing import Final

import recovery_journal as rj
from recovery_journal.domain.replay import ReplayMode
from recovery_journal.postgres.database import Database
from scripts.benchmark.measuring import Line, Rounds, fresh_schema, one_row
from scripts.benchmark.processes import PATIENCE_S, Crowd, Signals
from scripts.benchmark.rivals.crash import RIVALS
from scripts.histories.lost import KIND, fill_lost, fold

CLAIM_LIMIT: Final = 500
PAUSE_S: Final = 0.02
LIMITS: Final = rj.Limits(grace_s=0.0, ttl_s=600.0)
MANY_LEASES: Final = 100_000
"""With so many, one round says enough, and lasts long enough."""

COUNT: Final = """
SELECT count(*) AS event_count,
    count(*) FILTER (WHERE topic = 'dispatched') AS dispatched_count,
    count(*) FILTER (WHERE topic = 'replayed' AND state LIKE %(mode)s) AS replayed_count
FROM journal_events
WHERE originator_version > 2
"""


def measure_mass_crash(dsn: str, options: Namespace) -> Iterator[Line]:
    """Leases lost at once, recovered and claimed with their whole history; leases a second. Ratios
    are ours over the rival's, which keeps no such history.

    Sweepers and claimers, each a process, start together; the time is that from their start to the
    last claim, with state and tail. Every lease gets its five events, which are counted afterwards;
    then a follower brings the projections up to date. `ours_reducer` folds with a reducer.
    """
    for lease_count in options.leases:
        yield _measured(dsn, options, lease_count)


def _measured(dsn: str, options: Namespace, lease_count: int) -> Line:
    process_count = options.processes or 2
    round_count = options.rounds or (1 if lease_count >= MANY_LEASES else 3)
    rounds = Rounds("mass-crash", "s", round_count)
    for _ in rounds:
        recovered_s, followed_s = _crash(dsn, lease_count, process_count, ReplayMode.CHAIN)
        folded_s, _ = _crash(dsn, lease_count, process_count, ReplayMode.FOLD)
        rounds.add("ours", recovered_s)
        rounds.add("ours_reducer", folded_s)
        rounds.add("followed", followed_s)
        for name, measure in {} if options.no_rivals else RIVALS.items():
            rounds.add(name, measure(dsn, lease_count, process_count))
    median = rounds.medians()
    followed_s = median.pop("followed")
    return {
        "leases": lease_count,
        "sweepers": process_count,
        "claimers": process_count,
        "rounds": round_count,
        **{name: round(lease_count / taken_s) for name, taken_s in median.items()},
        "us_per_lease": round(1e6 * median["ours"] / lease_count, 1),
        "followed_s": round(followed_s, 3),
        **{
            f"ratio_{name}": round(median[name] / median["ours"], 3) if name in median else None
            for name in RIVALS
        },
    }


def _crash(dsn: str, lease_count: int, process_count: int, mode: ReplayMode) -> tuple[float, float]:
    """Lose so many leases, and recover them by as many sweepers and claimers as processes; seconds
    until all was claimed, and then until all was followed."""
    with fresh_schema(dsn) as database:
        fill_lost(database, lease_count)
        sweep = partial(_sweep, dsn, database.schema, mode)
        claimed = multiprocessing.get_context("spawn").Value("q", 0)
        claim = partial(_claim, dsn, database.schema, mode, claimed, lease_count)
        jobs = [*[sweep] * process_count, *(partial(claim, no) for no in range(process_count))]
        with Crowd(jobs) as crowd:
            begun = crowd.begin()
            recovered_s = max(crowd.results()) - begun
        _require_history(database, lease_count, mode)
        begun = time.monotonic()
        rj.Follower(rj.Journal(database)).catch_up(PATIENCE_S)
        return recovered_s, time.monotonic() - begun


def _sweep(dsn: str, schema: str, mode: ReplayMode, signals: Signals) -> float:
    """Sweep until nothing is lost; when that was."""
    journal = connected(Database(dsn, schema), mode)
    signals.begin()
    while journal.sweep():
        pass
    return time.monotonic()


def _claim(
    dsn: str,
    schema: str,
    mode: ReplayMode,
    claimed: "Synchronized[int]",
    lease_count: int,
    number: int,
    signals: Signals,
) -> float:
    """Claim until all is claimed; when that was."""
    journal = connected(Database(dsn, schema), mode)
    signals.begin()
    while claimed.value < lease_count:
        claims = journal.claim(worker_id=f"new-worker-{number}", limit=CLAIM_LIMIT)
        assert all(claim.state is not None and len(claim.tail) == 5 for claim in claims)
        with claimed.get_lock():
            claimed.value += len(claims)
        if not claims:
            time.sleep(PAUSE_S)
    return time.monotonic()


def connected(database: Database, mode: ReplayMode = ReplayMode.CHAIN) -> rj.Journal:
    """A journal for a measurement, whose connection is open."""
    reducers = {KIND: fold} if mode is ReplayMode.FOLD else {}
    journal = rj.Journal(database, limits=LIMITS, reducers=reducers)
    journal.reader.last_position()
    return journal


def _require_history(database: Database, lease_count: int, mode: ReplayMode) -> None:
    found = one_row(database, COUNT, mode=f'%"mode":"{mode.value}"%'.encode())
    assert list(found.values()) == [5 * lease_count, lease_count, lease_count], found
