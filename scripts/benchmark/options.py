"""The command line of the benchmarks."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

ALL: Final = "all"
PROFILE: Final = "profile"
PROFILES: Final = ("cohort", "claim")
MODERATE: Final = {"rounds": 2, "kills": 20, "wakes": 100}
"""Meant to let all cases together take about a quarter of an hour."""

COUNTS: Final[Mapping[str, tuple[int | None, str]]] = {
    "--rounds": (None, "whose median counts"),
    "--processes": (None, "rebuild: one for each core; mass-crash: 2; claim: 4"),
    "--kills": (50, "detect: of workers, per setting"),
    "--wakes": (200, "wake: of a sleeping worker"),
    "--workers": (50, "wake: in the idle fleet"),
    "--recoveries": (10, "churn: of each of the same leases"),
    "--fleet-workers": (1_000, "fleet: that wait"),
    "--sweepers": (50, "fleet: at once"),
}
"""Default and meaning."""

OTHERS: Final[Mapping[str, dict[str, Any]]] = {
    "--events": {
        "type": int,
        "nargs": "+",
        "help": "in the log; several show the growth; rebuild, as-of: 1,000,000; "
        "growth: 10,000, 100,000 and 1,000,000",
    },
    "--one-stream": {
        "action": "store_true",
        "help": "rebuild: all events in the stream of one attempt",
    },
    "--leases": {
        "type": int,
        "nargs": "+",
        "default": [10_000],
        "help": "mass-crash, claim: that are lost at once; several show the growth; fleet: that "
        "are renewed, or lost, at once",
    },
    "--no-rivals": {
        "action": "store_true",
        "help": "mass-crash: ours alone, nothing is installed",
    },
    "--idle-seconds": {
        "type": float,
        "default": 20.0,
        "help": "wake, fleet: that idle fleets are left",
    },
    "--dsn": {"default": os.environ.get("RECOVERY_JOURNAL_DSN")},
    "--report": {
        "type": Path,
        "metavar": "FILE",
        "help": "write a page with machine, versions, tables and charts, as in docs/figures",
    },
    "--lines": {
        "type": Path,
        "nargs": "+",
        "metavar": "FILE",
        "help": "measure nothing: write the page of lines that were printed before",
    },
}


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
        f"{PROFILE}: the processor time of {' and '.join(PROFILES)} by part",
    )
    for name, (default, meaning) in COUNTS.items():
        parser.add_argument(name, type=int, default=default, help=meaning)
    for name, settings in OTHERS.items():
        parser.add_argument(name, **settings)
    wanted = parser.parse_args()
    if wanted.cases == [ALL]:
        parser.set_defaults(**MODERATE)
        wanted = parser.parse_args()
    is_profile = wanted.cases[:1] == [PROFILE]
    known = PROFILES if is_profile else (*cases, ALL)
    if unknown := sorted(set(wanted.cases[is_profile:]) - {*known}):
        parser.error(f"unknown case {', '.join(unknown)}")
    return wanted
