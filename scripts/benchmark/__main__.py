"""One JSON object a line for each case, its references measured in the same run."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.benchmark.append import measure_append

CASES: Final[dict[str, Callable[..., dict[str, Any]]]] = {"append": measure_append}


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


def main() -> None:
    """Measure the cases that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="whose median counts")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--dsn", default=os.environ.get("RECOVERY_JOURNAL_DSN"))
    wanted = parser.parse_args()
    if unknown := set(wanted.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}")
    with _server(wanted.dsn) as dsn:
        for case in wanted.cases or CASES:
            line = CASES[case](
                dsn,
                seconds=wanted.seconds,
                rounds=wanted.rounds,
                process_count=wanted.processes,
            )
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
