"""One JSON object a line for each case, its references measured in the same run."""

import json
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from typing import Final

from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.benchmark.cases import CASES, measured
from scripts.benchmark.cost import PROFILES, profile
from scripts.benchmark.measuring import Line, say
from scripts.benchmark.report import describe_machine, read_lines, write_report
from scripts.benchmark.rivals.crash import rivals_python

ALL: Final = "all"
PROFILE: Final = "profile"
MODERATE: Final = {"rounds": 2, "kills": 20, "wakes": 100}
"""Meant to let all cases together take about a quarter of an hour."""

COUNTS: Final = (
    ("--rounds", None, "whose median counts"),
    ("--processes", None, "rebuild: one for each core; mass-crash: 2; claim: 4"),
    ("--kills", 50, "detect: of workers, per setting"),
    ("--wakes", 200, "wake: of a sleeping worker"),
    ("--workers", 50, "wake: in the idle fleet"),
    ("--recoveries", 10, "churn: of each of the same leases"),
    ("--fleet-workers", 1_000, "fleet: that wait"),
    ("--sweepers", 50, "fleet: at once"),
)
"""Name, default and meaning."""

SIZES: Final = (
    ("--events", None, "rebuild, as-of: 1,000,000 in the log; growth: 10,000 to 1,000,000"),
    ("--leases", [10_000], "mass-crash, claim, fleet: lost, or renewed, at once"),
)
"""Likewise, of options that take several numbers."""


def main() -> None:
    """Measure the cases that are named, or all of them; print the lines, and write the page."""
    wanted = _options()
    with _server(wanted.dsn) as dsn:
        if wanted.cases[:1] == [PROFILE]:
            for what in wanted.cases[1:] or PROFILES:
                print(profile(dsn, what, wanted.leases[0]))
            return
        lines: list[Line] = [line for file in wanted.lines or () for line in read_lines(file)]
        notes: list[str] = []
        for line in () if wanted.lines else _measured(dsn, wanted, notes):
            lines.append(line)
            print(json.dumps(line), flush=True)
        if wanted.report:
            write_report(wanted.report, lines, describe_machine(dsn), notes)


def _options() -> Namespace:
    """The cases that are named, and how large they are to be; ends the program where one is
    unknown."""
    parser = ArgumentParser(prog="scripts/bench", description=__doc__)
    add = parser.add_argument
    meaning = f"of {', '.join(CASES)}; {ALL}: each, in moderate sizes; "
    meaning += f"{PROFILE}: the processor time of {' and '.join(PROFILES)} by part"
    add("cases", nargs="*", metavar="CASE", help=meaning)
    for name, default, meaning in COUNTS:
        add(name, type=int, default=default, help=meaning)
    for name, sizes, meaning in SIZES:
        add(name, type=int, nargs="+", default=sizes, help=f"{meaning}; several show the growth")
    add("--one-stream", action="store_true", help="rebuild: all events in one attempt's stream")
    add("--no-rivals", action="store_true", help="mass-crash: ours alone, nothing is installed")
    add("--idle-seconds", type=float, default=20.0, help="wake, fleet: that idle fleets are left")
    add("--dsn", default=os.environ.get("RECOVERY_JOURNAL_DSN"))
    meaning = "write a page with machine, versions, tables and charts, as in docs/figures"
    add("--report", type=Path, metavar="FILE", help=meaning)
    meaning = "measure nothing: write the page of lines that were printed before"
    add("--lines", type=Path, nargs="+", metavar="FILE", help=meaning)
    wanted = parser.parse_args()
    if wanted.cases == [ALL]:
        parser.set_defaults(**MODERATE)
        wanted = parser.parse_args()
    is_profile = wanted.cases[:1] == [PROFILE]
    known = PROFILES if is_profile else (*CASES, ALL)
    if unknown := sorted(set(wanted.cases[is_profile:]) - {*known}):
        parser.error(f"unknown case {', '.join(unknown)}")
    return wanted


def _measured(dsn: str, wanted: Namespace, notes: list[str]) -> Iterator[Line]:
    for case in CASES if wanted.cases in ([], [ALL]) else wanted.cases:
        if case == "mass-crash" and not wanted.no_rivals:
            wanted.no_rivals = not _has_rivals(notes)
        yield from measured(case, dsn, wanted)


def _has_rivals(notes: list[str]) -> bool:
    """Whether the rivals are there, or can be installed; the page and standard error say if not."""
    try:
        rivals_python()
    except (CalledProcessError, OSError) as error:
        notes.append(f"the rivals of a mass crash, whose environment could not be made ({error})")
        say("mass-crash", notes[-1])
        return False
    return True


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
