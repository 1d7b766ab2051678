"""One JSON object a line for each case, its references measured in the same run."""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError

from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.benchmark.cases import CASES
from scripts.benchmark.measuring import Line, say
from scripts.benchmark.options import ALL, PROFILE, PROFILES, wanted_of
from scripts.benchmark.profile import profile, table
from scripts.benchmark.report import describe_machine, read_lines, write_report
from scripts.benchmark.rivals.crash import rivals_python


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
