"""A calm and steady fleet for a quarter of an hour, and whether anything grows: `scripts/soak`."""

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import recovery_journal as rj
from scripts.benchmark.apart import run_apart
from scripts.demonstration.interruption import handled, held_back, ignore_all, leave
from scripts.soaking.leak import Leak, with_leaks
from scripts.soaking.past import make_past
from scripts.soaking.report import Report
from scripts.soaking.server import SoakServer
from scripts.soaking.soak import Soak, Soaked
from scripts.soaking.verdict import idle, judged
from scripts.storming.fleet import Fleet
from scripts.storming.life import LIMITS, Setting

INTERRUPTED: Final = 130
TIDYING_S: Final = 600
MINUTE_S: Final = 60
PAST: Final = 5_000


def main(arguments: list[str] | None = None) -> int:
    """Let a fleet work, and judge what was seen; 0 only where nothing grows."""
    options = parsed(arguments)
    report = Report(is_json=options.json)
    folder = Path(tempfile.mkdtemp(prefix="rj-soak-"))
    is_kept = True
    try:
        with handled(leave):
            soaked = soaked_for(options, folder, report)
            found = judged(soaked.samples)
        wrongs = [*soaked.wrongs, *idle(soaked.done)]
        is_kept = bool(wrongs) or any(it.is_growing for it in found)
        report.conclude(options.minutes, soaked, found, wrongs)
        return 1 if is_kept else 0
    except KeyboardInterrupt:
        is_kept = False
        report.say("broken off; every process that was started is gone")
        return INTERRUPTED
    finally:
        shutil.rmtree(folder / "server", ignore_errors=True)
        if is_kept:
            report.say(f"what was seen, and the logs of the processes, are in {folder}")
        else:
            shutil.rmtree(folder)


def soaked_for(options: argparse.Namespace, folder: Path, report: Report) -> Soaked:
    """A soak from beginning to end, and what was seen. No process is left behind."""
    length_s = options.minutes * MINUTE_S
    data = folder / "server"
    data.mkdir()
    with ExitStack() as stack:
        with held_back():  # half a server is hard to tidy up
            server = stack.enter_context(SoakServer.running(data))
        setting = Setting(
            dsn=server.dsn,
            folder=folder,
            schema="soak",
            life_limit_s=round(length_s) + TIDYING_S,
        )
        rj.open(setting.dsn, schema=setting.schema, limits=LIMITS).close()
        # In a process of its own: what that takes, everybody forked from here would have.
        run_apart(make_past, setting.dsn, setting.schema, options.past)
        with held_back():  # what is forked here would break off as well
            fleet = stack.enter_context(Fleet(setting, with_leaks(options.plant)))
        stack.callback(ignore_all)
        soak = Soak(setting, server, fleet)
        with report.bar(length_s) as show:
            soak.last(length_s, show)
        return soak.soaked


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long it lasts")
    parser.add_argument(
        "--plant",
        type=Leak,
        choices=list(Leak),
        action="append",
        default=[],
        help="let a part of the fleet leak that, to see it found; may be given again",
    )
    parser.add_argument(
        "--past",
        type=int,
        default=PAST,
        help="how many finished attempts the journal holds at the beginning",
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error("a soak reads what Linux shows of each process below /proc; run it there")
    return options


if __name__ == "__main__":
    sys.exit(main())
