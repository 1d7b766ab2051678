"""What a benchmark is asked for on the command line."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from pathlib import Path
from typing import Final

ALL: Final = "all"
PROFILE: Final = "profile"
PROFILES: Final = ("cohort", "claim")
MODERATE: Final = {"rounds": 2, "kills": 20, "wakes": 100}
"""Meant to let all cases together take about a quarter of an hour."""


def wanted_of(cases: Collection[str]) -> Namespace:
    """The cases that are named, and how large they are to be; ends the program where one is
    unknown."""
    parser = ArgumentParser(
        prog="scripts/bench",
        description="One JSON object a line for each case, with references of the same run.",
    )
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(cases)}; {ALL}: each, in moderate sizes; "
        f"{PROFILE}: where the time of {' and '.join(PROFILES)} goes",
    )
    _add_sizes(parser)
    _add_fleets(parser)
    _add_surroundings(parser)
    wanted = parser.parse_args()
    if wanted.cases == [ALL]:
        parser.set_defaults(**MODERATE)
        wanted = parser.parse_args()
    is_profile = wanted.cases[:1] == [PROFILE]
    known = PROFILES if is_profile else (*cases, ALL)
    if unknown := sorted(set(wanted.cases[is_profile:]) - {*known}):
        parser.error(f"unknown case {', '.join(unknown)}")
    return wanted


def _add_sizes(parser: ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help="whose median counts")
    parser.add_argument(
        "--processes",
        type=int,
        help="rebuild: one for each core; mass-crash: 2; claim: 4",
    )
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


def _add_fleets(parser: ArgumentParser) -> None:
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


def _add_surroundings(parser: ArgumentParser) -> None:
    parser.add_argument("--dsn", default=os.environ.get("RECOVERY_JOURNAL_DSN"))
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page with machine, versions, tables and charts, as in docs/figures",
    )
    parser.add_argument(
        "--lines",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: write the page of lines that were printed before",
    )
