"""One JSON object a line for each case, its references measured in the same run."""

import argparse
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.benchmark.append import measure_append
from scripts.benchmark.as_of import measure_as_of
from scripts.benchmark.claim import BATCHES, measure_claim
from scripts.benchmark.detect import measure_detect
from scripts.benchmark.mass_crash import measure_mass_crash
from scripts.benchmark.profile_append import profile_append
from scripts.benchmark.rebuild import measure_rebuild
from scripts.benchmark.wake import measure_wake

Line: TypeAlias = dict[str, Any]

MANY_EVENTS: Final = 10_000_000
MANY_LEASES: Final = 100_000
"""With so many, one round says enough, and lasts long enough."""


def _append(dsn: str, options: Namespace) -> Iterator[Line]:
    yield measure_append(
        dsn,
        seconds=options.seconds,
        rounds=options.rounds or 5,
        process_count=options.processes or 8,
    )


def _profile_append(dsn: str, _options: Namespace) -> Iterator[Line]:
    yield profile_append(dsn)


def _rebuild(dsn: str, options: Namespace) -> Iterator[Line]:
    for event_count in options.events:
        yield measure_rebuild(
            dsn,
            event_count=event_count,
            rounds=_rounds(options, event_count),
            process_count=options.processes or os.cpu_count() or 1,
        )


def _as_of(dsn: str, options: Namespace) -> Iterator[Line]:
    for event_count in options.events:
        yield measure_as_of(dsn, event_count=event_count, rounds=_rounds(options, event_count))


def _mass_crash(dsn: str, options: Namespace) -> Iterator[Line]:
    for lease_count in options.leases:
        yield measure_mass_crash(
            dsn,
            lease_count=lease_count,
            rounds=options.rounds or (1 if lease_count >= MANY_LEASES else 3),
            process_count=options.processes or 2,
            has_rivals=not options.no_rivals,
        )


def _claim(dsn: str, options: Namespace) -> Iterator[Line]:
    for lease_count in options.leases:
        for batch in BATCHES:
            yield measure_claim(
                dsn,
                lease_count=lease_count,
                batch=batch,
                rounds=options.rounds or 3,
                process_count=options.processes or 4,
            )


def _detect(dsn: str, options: Namespace) -> Iterator[Line]:
    yield measure_detect(dsn, kill_count=options.kills)


def _wake(dsn: str, options: Namespace) -> Iterator[Line]:
    yield measure_wake(
        dsn, wake_count=options.wakes, worker_count=options.workers, idle_s=options.idle_seconds
    )


def _rounds(options: Namespace, event_count: int) -> int:
    return options.rounds or (1 if event_count >= MANY_EVENTS else 3)


CASES: Final[dict[str, Callable[[str, Namespace], Iterator[Line]]]] = {
    "append": _append,
    "profile-append": _profile_append,
    "rebuild": _rebuild,
    "as-of": _as_of,
    "mass-crash": _mass_crash,
    "claim": _claim,
    "detect": _detect,
    "wake": _wake,
}


def main() -> None:
    """Measure the cases that are named, or all of them."""
    wanted = _wanted()
    with served(wanted.dsn) as dsn:
        for case in wanted.cases or CASES:
            for line in CASES[case](dsn, wanted):
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()


def _wanted() -> Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, help="whose median counts")
    parser.add_argument(
        "--processes",
        type=int,
        help="append: 8; rebuild: one for each core; mass-crash: 2; claim: 4",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="append: of one measurement")
    parser.add_argument(
        "--events",
        type=int,
        nargs="+",
        default=[1_000_000],
        help="rebuild, as-of: in the log; several show the growth",
    )
    parser.add_argument(
        "--leases",
        type=int,
        nargs="+",
        default=[10_000],
        help="mass-crash, claim: that are lost at once; several show the growth",
    )
    parser.add_argument(
        "--no-rivals", action="store_true", help="mass-crash: ours alone, nothing is installed"
    )
    parser.add_argument("--kills", type=int, default=50, help="detect: of workers, per setting")
    parser.add_argument("--wakes", type=int, default=200, help="wake: of a sleeping worker")
    parser.add_argument("--workers", type=int, default=50, help="wake: in the idle fleet")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="wake: of that fleet")
    parser.add_argument("--dsn", default=os.environ.get("RECOVERY_JOURNAL_DSN"))
    wanted = parser.parse_args()
    if unknown := set(wanted.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}")
    return wanted


@contextmanager
def served(dsn: str | None) -> Iterator[str]:
    """The server that is named, or a fresh embedded one with its defaults, fsync among them."""
    if dsn:
        yield dsn
        return
    with (
        tempfile.TemporaryDirectory(prefix="rj-") as folder,
        EmbeddedServer.start(Path(folder)) as server,
    ):
        yield server.dsn


if __name__ == "__main__":
    main()
