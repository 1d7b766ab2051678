"""Run many seeds side by side; say what was survived, or what broke and how to see it again."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recovery_journal.domain.errors import RecoveryJournalError
from scripts.simulation.faults import Fault, read, written
from scripts.simulation.run import Outcome, simulate
from scripts.simulation.server import simulation_server
from scripts.simulation.shrink import shrink

SEEDS_PER_PROCESS: Final = 100
"""A process is replaced after so many: what a run leaves behind goes with it."""

TERMINATED: Final = 128 + signal.SIGTERM

COMMAND: Final = "scripts/simulate --first-seed {seed} --seeds 1 --faults {faults}"


def main() -> int:
    """Exit 1 on a broken promise, 2 on a wrong option."""
    options = _options()
    try:
        faults = None if options.faults is None else read(options.faults)
    except RecoveryJournalError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    tally = Tally()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(TERMINATED))
    process_count = max(1, min(options.processes, options.seeds))
    with ExitStack() as stack:
        # One for each process: what a server cleans up, and so the order of rows that were asked
        # for in none, depends on the oldest transaction in any of its databases.
        dsns = [stack.enter_context(simulation_server()) for _ in range(process_count)]
        broken = None
        with closing(_outcomes(dsns, options, faults)) as outcomes:
            for outcome in outcomes:
                tally.add(outcome)
                if outcome.violation:
                    broken = outcome
                    break
        if broken is not None:
            _tell(dsns[0], broken, is_to_shrink=not options.no_shrink)
    sys.stdout.write(f"{json.dumps(tally.line())}\n")
    return 1 if tally.violation_count else 0


class Tally:
    """What all runs together went through."""

    def __init__(self) -> None:
        self.run_count = 0
        self.violation_count = 0
        self._call_count = 0
        self._event_count = 0
        self._seconds = 0.0
        self._faults: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.run_count += 1
        self.violation_count += bool(outcome.violation)
        self._call_count += outcome.call_count
        self._event_count += outcome.event_count
        self._seconds += outcome.seconds
        self._faults.update(str(fault.kind) for fault in outcome.faults.values())
        self._statuses.update(outcome.statuses)

    def line(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "seeds": self.run_count,
            "violations": self.violation_count,
            "simulated_s": round(self._seconds),
            "calls": self._call_count,
            "events": self._event_count,
            "faults": dict(sorted(self._faults.items())),
            "attempts": dict(sorted(self._statuses.items())),
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=0, help="the first run's seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--faults", help="these faults alone, as a failed run prints them")
    parser.add_argument("--no-shrink", action="store_true", help="tell a failure as it came")
    return parser.parse_args()


def _outcomes(
    dsns: list[str], options: argparse.Namespace, faults: dict[int, Fault] | None
) -> Generator[Outcome]:
    context = multiprocessing.get_context("fork")  # before the progress bar has a thread
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    idle: SimpleQueue[str] = context.SimpleQueue()
    for dsn in dsns:
        idle.put(dsn)
    with (
        context.Pool(
            len(dsns), initializer=_begin, initargs=(idle,), maxtasksperchild=SEEDS_PER_PROCESS
        ) as pool,
        _progress() as progress,
    ):
        outcomes = pool.imap_unordered(partial(_simulate, faults), seeds)
        yield from progress.track(outcomes, total=options.seeds, description="seeds")


_servers: "list[SimpleQueue[str]]" = []
"""In a process of the pool: where to find a server that nobody uses."""


def _begin(idle: "SimpleQueue[str]") -> None:
    """A process of the pool ends where it is told to; only the first one has something to clear."""
    _servers.append(idle)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _simulate(faults: dict[int, Fault] | None, seed: int) -> Outcome:
    (idle,) = _servers
    dsn = idle.get()
    try:
        return simulate(dsn, seed, faults)
    finally:
        idle.put(dsn)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _tell(dsn: str, outcome: Outcome, *, is_to_shrink: bool) -> None:
    sys.stderr.write(f"seed {outcome.seed} broke a promise: {outcome.violation}\n")
    faults = outcome.faults
    if is_to_shrink:
        faults = shrink(faults, lambda few: bool(simulate(dsn, outcome.seed, few).violation))
        sys.stderr.write(f"of its {len(outcome.faults)} faults it needs {len(faults)}\n")
    again = COMMAND.format(seed=outcome.seed, faults=written(faults))
    sys.stderr.write(f"to see it again: {again}\n")


if __name__ == "__main__":
    sys.exit(main())
