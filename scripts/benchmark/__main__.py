"""One JSON object a line for each case, its references measured in the same run."""

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
from scripts.benchmark.as_of import measure_as_of
from scripts.benchmark.churn import measure_churn
from scripts.benchmark.claim import BATCHES, measure_claim
from scripts.benchmark.detect import measure_detect
from scripts.benchmark.fleet import measure_fleet
from scripts.benchmark.gap_check import measure_gap_check
from scripts.benchmark.growth import measure_growth
from scripts.benchmark.lease_budget import measure_budget
from scripts.benchmark.machine import describe_machine
from scripts.benchmark.mass_crash import measure_mass_crash
from scripts.benchmark.options import ALL, PROFILE, PROFILES, wanted_of
from scripts.benchmark.profile import profile, table
from scripts.benchmark.rebuild import measure_rebuild
from scripts.benchmark.report import read_lines, write_report
from scripts.benchmark.rivals.environment import rivals_python
from scripts.benchmark.wake import measure_wake

Line: TypeAlias = dict[str, Any]

EVENTS: Final = (1_000_000,)
GROWN_EVENTS: Final = (10_000, 100_000, 1_000_000)
MANY_EVENTS: Final = 10_000_000
MANY_LEASES: Final = 100_000
"""With so many, one round says enough, and lasts long enough."""


def _gap_check(dsn: str, _options: Namespace) -> Iterator[Line]:
    yield measure_gap_check(dsn)


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
    "gap-check": _gap_check,
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
    wanted = wanted_of(CASES)
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
