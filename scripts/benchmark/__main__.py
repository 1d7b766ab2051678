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
from subprocess import CalledProcessError
from typing import Any, Final, TypeAlias

from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.benchmark.append import measure_append
from scripts.benchmark.as_of import measure_as_of
from scripts.benchmark.churn import measure_churn
from scripts.benchmark.claim import BATCHES, measure_claim
from scripts.benchmark.detect import measure_detect
from scripts.benchmark.fleet import measure_fleet
from scripts.benchmark.growth import measure_growth
from scripts.benchmark.lease_budget import measure_budget
from scripts.benchmark.machine import describe_machine
from scripts.benchmark.mass_crash import measure_mass_crash
from scripts.benchmark.profile import profile, table
from scripts.benchmark.profile_append import profile_append
from scripts.benchmark.rebuild import measure_rebuild
from scripts.benchmark.report import read_lines, write_report
from scripts.benchmark.rivals.environment import rivals_python
from scripts.benchmark.wake import measure_wake

Line: TypeAlias = dict[str, Any]

ALL: Final = "all"
PROFILE: Final = "profile"
PROFILES: Final = ("cohort", "claim")
MODERATE: Final = {"rounds": 2, "kills": 20, "wakes": 100}
"""Meant to let all cases together take about a quarter of an hour."""

EVENTS: Final = (1_000_000,)
GROWN_EVENTS: Final = (10_000, 100_000, 1_000_000)
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
    for event_count in options.events or EVENTS:
        yield measure_rebuild(
            dsn,
            event_count=event_count,
            rounds=_rounds(options, event_count),
            process_count=options.processes or os.cpu_count() or 1,
            is_one_stream=options.one_stream,
        )


def _as_of(dsn: str, options: Namespace) -> Iterator[Line]:
    for event_count in options.events or EVENTS:
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


def _lease_budget(dsn: str, options: Namespace) -> Iterator[Line]:
    for lease_count in options.leases:
        yield measure_budget(dsn, lease_count=lease_count)


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


def _growth(dsn: str, options: Namespace) -> Iterator[Line]:
    yield from measure_growth(
        dsn, event_counts=options.events or GROWN_EVENTS, rounds=options.rounds or 5
    )


def _churn(dsn: str, options: Namespace) -> Iterator[Line]:
    yield measure_churn(dsn, recovery_count=options.recoveries)


def _fleet(_dsn: str, options: Namespace) -> Iterator[Line]:
    """On a server of its own, because it stops that."""
    yield from measure_fleet(
        lease_count=options.leases[0],
        worker_count=options.fleet_workers,
        sweeper_count=options.sweepers,
        idle_s=options.idle_seconds,
        rounds=options.rounds or 3,
    )


def _rounds(options: Namespace, event_count: int) -> int:
    return options.rounds or (1 if event_count >= MANY_EVENTS else 3)


CASES: Final[dict[str, Callable[[str, Namespace], Iterator[Line]]]] = {
    "append": _append,
    "profile-append": _profile_append,
    "rebuild": _rebuild,
    "as-of": _as_of,
    "mass-crash": _mass_crash,
    "lease-budget": _lease_budget,
    "claim": _claim,
    "detect": _detect,
    "wake": _wake,
    "growth": _growth,
    "churn": _churn,
    "fleet": _fleet,
}


def main() -> None:
    """Measure the cases that are named, or all of them; print the lines, and write the page."""
    wanted = _wanted()
    lines: list[Line] = []
    notes: list[str] = []
    with _server(wanted.dsn) as dsn:
        if wanted.cases[:1] == [PROFILE]:
            for what in wanted.cases[1:] or PROFILES:
                parts = list(profile(dsn, what, wanted.leases[0]))
                sys.stdout.write(table(what, wanted.leases[0], parts) + "\n")
            return
        for file in wanted.lines or ():
            lines += read_lines(file)
        for line in () if wanted.lines else _measured(dsn, wanted, notes):
            lines.append(line)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        if wanted.report:
            write_report(wanted.report, lines, describe_machine(dsn), notes)


def _measured(dsn: str, wanted: Namespace, notes: list[str]) -> Iterator[Line]:
    for case in CASES if wanted.cases in ([], [ALL]) else wanted.cases:
        if case == "mass-crash" and not wanted.no_rivals:
            wanted.no_rivals = not _has_rivals(notes)
        yield from CASES[case](dsn, wanted)


def _has_rivals(notes: list[str]) -> bool:
    """Whether the rivals are there, or can be installed; the page and standard error say if not."""
    try:
        rivals_python()
    except (CalledProcessError, OSError) as error:
        notes.append(f"the rivals of a mass crash, whose environment could not be made ({error})")
        sys.stderr.write(f"mass-crash: {notes[-1]}\n")
        return False
    return True


def _wanted() -> Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(CASES)}; {ALL}: each, in moderate sizes",
    )
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
        help="in the log; several show the growth; rebuild, as-of: 1,000,000; "
        "growth: 10,000, 100,000 and 1,000,000",
    )
    parser.add_argument(
        "--one-stream", action="store_true", help="rebuild: all events in the stream of one attempt"
    )
    parser.add_argument(
        "--leases",
        type=int,
        nargs="+",
        default=[10_000],
        help="mass-crash, claim: that are lost at once; several show the growth; fleet: that are "
        "renewed, or lost, at once",
    )
    parser.add_argument(
        "--no-rivals", action="store_true", help="mass-crash: ours alone, nothing is installed"
    )
    parser.add_argument("--kills", type=int, default=50, help="detect: of workers, per setting")
    parser.add_argument("--wakes", type=int, default=200, help="wake: of a sleeping worker")
    parser.add_argument("--workers", type=int, default=50, help="wake: in the idle fleet")
    parser.add_argument(
        "--idle-seconds", type=float, default=20.0, help="wake, fleet: that idle fleets are left"
    )
    parser.add_argument(
        "--recoveries", type=int, default=10, help="churn: of each of the same leases"
    )
    parser.add_argument("--fleet-workers", type=int, default=1_000, help="fleet: that wait")
    parser.add_argument("--sweepers", type=int, default=50, help="fleet: at once")
    parser.add_argument("--dsn", default=os.environ.get("RECOVERY_JOURNAL_DSN"))
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page with machine, versions, tables and charts, as docs/benchmarks.md is",
    )
    parser.add_argument(
        "--lines",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: write the page of lines that were printed before",
    )
    wanted = parser.parse_args()
    if wanted.cases == [ALL]:
        parser.set_defaults(**MODERATE)
        wanted = parser.parse_args()
    known = PROFILES if wanted.cases[:1] == [PROFILE] else (*CASES, ALL)
    if unknown := set(wanted.cases) - {*known, *wanted.cases[:1]} | set(wanted.cases[:1]) - {
        *CASES,
        ALL,
        PROFILE,
    }:
        parser.error(f"unknown case {', '.join(sorted(unknown))}")
    return wanted


@contextmanager
def _server(dsn: str | None) -> Iterator[str]:
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
