"""Run many seeds side by side; report what was survived, or what broke and how to reproduce it."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any, Final

from recovery_journal.domain.errors import RecoveryJournalError
from scripts.harness.screen import Screen
from scripts.simulation.faults import Fault, read, shrink, written
from scripts.simulation.run import Outcome, simulate
from scripts.simulation.server import simulation_server

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
    done: list[Outcome] = []
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(TERMINATED))
    process_count = max(1, min(options.processes, options.seeds))
    with ExitStack() as stack:
        # One for each process: what a server cleans up, and so the order of rows that were asked
        # for in none, depends on the oldest transaction in any of its databases.
        dsns = [stack.enter_context(simulation_server()) for _ in range(process_count)]
        with closing(_outcomes(dsns, options, faults)) as outcomes:
            for outcome in outcomes:
                done.append(outcome)
                if outcome.violation:
                    break
        if done and done[-1].violation:
            _report(dsns[0], done[-1], is_to_shrink=not options.no_shrink)
    result = summary(done)
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 1 if result["violations"] else 0


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All runs together, as one JSON object."""
    faults = Counter(str(fault.kind) for it in outcomes for fault in it.faults.values())
    statuses = sum((Counter(it.statuses) for it in outcomes), Counter())
    return {
        "seeds": len(outcomes),
        "violations": sum(bool(it.violation) for it in outcomes),
        "simulated_s": round(sum(it.seconds for it in outcomes)),
        "calls": sum(it.call_count for it in outcomes),
        "events": sum(it.event_count for it in outcomes),
        "faults": dict(sorted(faults.items())),
        "attempts": dict(sorted(statuses.items())),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=0, help="the first run's seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--faults", help="these faults alone, as a failed run prints them")
    parser.add_argument("--no-shrink", action="store_true", help="report a failure as it came")
    return parser.parse_args()


def _outcomes(
    dsns: list[str], options: argparse.Namespace, faults: dict[int, Fault] | None
) -> Generator[Outcome]:
    context = multiprocessing.get_context("fork")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    idle: SimpleQueue[str] = context.SimpleQueue()
    for dsn in dsns:
        idle.put(dsn)
    with (
        context.Pool(
            len(dsns), initializer=_begin, initargs=(idle,), maxtasksperchild=SEEDS_PER_PROCESS
        ) as pool,
        Screen(for_figures=True).bar(options.seeds, "", "seeds", is_spoken=False) as show,
    ):
        outcomes = pool.imap_unordered(partial(_simulate, faults), seeds)
        for done, outcome in enumerate(outcomes, start=1):
            show(done, "")
            yield outcome


_servers: "list[SimpleQueue[str]]" = []
"""In a process of the pool: where to find an idle server."""


def _begin(idle: "SimpleQueue[str]") -> None:
    """A process of the pool ends at SIGTERM; only the first one has something to clean up."""
    _servers.append(idle)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _simulate(faults: dict[int, Fault] | None, seed: int) -> Outcome:
    (idle,) = _servers
    dsn = idle.get()
    try:
        return simulate(dsn, seed, faults)
    finally:
        idle.put(dsn)


def _report(dsn: str, outcome: Outcome, *, is_to_shrink: bool) -> None:
    sys.stderr.write(f"seed {outcome.seed} broke a promise: {outcome.violation}\n")
    faults = outcome.faults
    if is_to_shrink:
        faults = shrink(faults, lambda few: bool(simulate(dsn, outcome.seed, few).violation))
        sys.stderr.write(f"of its {len(outcome.faults)} faults it needs {len(faults)}\n")
    again = COMMAND.format(seed=outcome.seed, faults=written(faults))
    sys.stderr.write(f"to see it again: {again}\n")


if __name__ == "__main__":
    sys.exit(main())
