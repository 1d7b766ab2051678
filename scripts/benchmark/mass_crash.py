"""A mass crash: many leases lost at once, recovered by sweepers and claimed by new workers.

Two sweepers and two claimers, each a process, start together; the time is that from their start
to the last claim, each handed over with its state and its tail. Every lease gets its five events,
which are counted afterwards; then a follower brings the projections up to date.
"""

import multiprocessing
import statistics
import sys
import time
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import Any, Final, NamedTuple

from recovery_journal.domain.replay import ReplayMode
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.following.follower import Follower
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import KIND, fill_lost, fold
from scripts.benchmark.rivals.crash import RIVALS

CLAIM_LIMIT: Final = 500
PATIENCE_S: Final = 600
PAUSE_S: Final = 0.02
LIMITS: Final = Limits(grace_s=0.0, ttl_s=600.0)

COUNT: Final = """
SELECT count(*) AS event_count,
    count(*) FILTER (WHERE topic = 'dispatched') AS dispatched_count,
    count(*) FILTER (WHERE topic = 'replayed' AND state LIKE %(mode)s) AS replayed_count
FROM journal_events
WHERE originator_version > 2
"""


class Crash(NamedTuple):
    """One mass crash: seconds until all was claimed, and then until all was followed."""

    recovered_s: float
    followed_s: float


def measure_crash(
    dsn: str, lease_count: int, *, process_count: int, mode: ReplayMode = ReplayMode.CHAIN
) -> Crash:
    """Lose so many leases, and recover them by as many sweepers and claimers as processes."""
    with fresh_schema(dsn) as database:
        fill_lost(database, lease_count)
        recovered_s = _recover(dsn, database.schema, lease_count, process_count, mode)
        _require_history(database, lease_count, mode)
        begun = time.monotonic()
        journal = Journal(database)
        Follower(journal).catch_up(PATIENCE_S)
        return Crash(recovered_s, time.monotonic() - begun)


def _recover(
    dsn: str, schema: str, lease_count: int, process_count: int, mode: ReplayMode
) -> float:
    """Seconds from the start of all processes to the last claim."""
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(2 * process_count + 1), spawn.Queue()
    claimed = spawn.Value("q", 0)
    given = (dsn, schema, mode, start, answers)
    processes = [spawn.Process(target=_sweep, args=given) for _ in range(process_count)]
    processes += [
        spawn.Process(target=_claim, args=(*given, claimed, lease_count, number))
        for number in range(process_count)
    ]
    for process in processes:
        process.start()
    start.wait(PATIENCE_S)
    begun = time.monotonic()
    ends: list[float] = [answers.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join()
    return max(ends) - begun


def _sweep(dsn: str, schema: str, mode: ReplayMode, start: Barrier, ends: "Queue[float]") -> None:
    journal = _journal(dsn, schema, mode)
    start.wait(PATIENCE_S)
    while journal.sweep():
        pass
    ends.put(time.monotonic())


def _claim(
    dsn: str,
    schema: str,
    mode: ReplayMode,
    start: Barrier,
    ends: "Queue[float]",
    claimed: "Synchronized[int]",
    lease_count: int,
    number: int,
) -> None:
    journal = _journal(dsn, schema, mode)
    start.wait(PATIENCE_S)
    while claimed.value < lease_count:
        claims = journal.claim(worker_id=f"new-worker-{number}", limit=CLAIM_LIMIT)
        assert all(claim.state is not None and len(claim.tail) == 5 for claim in claims)
        with claimed.get_lock():
            claimed.value += len(claims)
        if not claims:
            time.sleep(PAUSE_S)
    ends.put(time.monotonic())


def _journal(dsn: str, schema: str, mode: ReplayMode) -> Journal:
    journal = Journal(
        Database(dsn, schema),
        limits=LIMITS,
        reducers={KIND: fold} if mode is ReplayMode.FOLD else {},
    )
    journal.reader.last_position()  # connects
    return journal


def _require_history(database: Database, lease_count: int, mode: ReplayMode) -> None:
    says = f'%"mode":"{mode.value}"%'.encode()
    with database.cursor() as cursor:
        found = cursor.execute(COUNT, {"mode": says}).fetchone()
    assert found == {
        "event_count": 5 * lease_count,
        "dispatched_count": lease_count,
        "replayed_count": lease_count,
    }, found


def measure_mass_crash(
    dsn: str, *, lease_count: int, rounds: int, process_count: int, has_rivals: bool
) -> dict[str, Any]:
    """Leases a second, by the chain and with a reducer, and those of the rivals; medians."""
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "ours_reducer", "followed")}
    for number in range(rounds):
        crash = measure_crash(dsn, lease_count, process_count=process_count)
        folded = measure_crash(dsn, lease_count, process_count=process_count, mode=ReplayMode.FOLD)
        seconds["ours"].append(crash.recovered_s)
        seconds["ours_reducer"].append(folded.recovered_s)
        seconds["followed"].append(crash.followed_s)
        for name, measure in RIVALS.items() if has_rivals else ():
            seconds.setdefault(name, []).append(measure(dsn, lease_count, process_count))
        newest = ", ".join(f"{name} {found[-1]:.2f}" for name, found in seconds.items())
        sys.stderr.write(f"mass-crash, round {number + 1} of {rounds}: {newest} s\n")
    median = {name: statistics.median(found) for name, found in seconds.items()}
    followed_s = median.pop("followed")
    rates = {name: round(lease_count / taken_s) for name, taken_s in median.items()}
    ratios = {
        f"ratio_{name}": round(median[name] / median["ours"], 3) if name in median else None
        for name in RIVALS
    }
    return {
        "case": "mass-crash",
        "unit": "leases/s",
        "leases": lease_count,
        "sweepers": process_count,
        "claimers": process_count,
        "rounds": rounds,
        **rates,
        "us_per_lease": round(1e6 * median["ours"] / lease_count, 1),
        "followed_s": round(followed_s, 3),
        **ratios,
    }
