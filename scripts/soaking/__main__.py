"""Soak test: a fleet without faults, whose processes must not grow: `scripts/soak`."""

import argparse
import sys
from pathlib import Path
from typing import Final

import recovery_journal as rj
from scripts.benchmark.processes import run_apart
from scripts.harness.life import Setting
from scripts.harness.parts import LIMITS
from scripts.harness.program import run, started_fleet, started_server
from scripts.harness.screen import Screen
from scripts.histories.rows import make_past
from scripts.soaking.member import Leak, with_leaks
from scripts.soaking.server import SoakServer
from scripts.soaking.soak import Soak
from scripts.soaking.verdict import conclude, idle, judged

CLEANING_S: Final = 600
MINUTE_S: Final = 60
PAST: Final = 5_000


def main(arguments: list[str] | None = None) -> int:
    """Let a fleet work, and judge the samples; 0 only where nothing grows."""
    options = parsed(arguments)
    screen = Screen(for_figures=True)

    def act(folder: Path) -> bool:
        soaked = soaked_for(options, folder, screen)
        found = judged(soaked.samples)
        wrongs = [*soaked.wrongs, *idle(soaked.done)]
        figures = conclude(screen, options.minutes, soaked, found, wrongs)
        if options.json:
            screen.show_json(figures)
        return not wrongs and not any(it.is_growing for it in found)

    return run("soak", screen, act)


def soaked_for(options: argparse.Namespace, folder: Path, screen: Screen) -> Soak:
    """A soak test from beginning to end, and its samples. No process is left behind."""
    length_s = options.minutes * MINUTE_S
    with started_server(SoakServer, folder) as server:
        setting = Setting(dsn=server.dsn, folder=folder, life_limit_s=round(length_s) + CLEANING_S)
        rj.open(setting.dsn, schema=setting.schema, limits=LIMITS).close()
        # In a process of its own: all that are forked from here would have its memory.
        run_apart(make_past, setting.dsn, setting.schema, options.past)
        with started_fleet(setting, with_leaks(options.plant)) as fleet:
            soak = Soak(setting, server, fleet)
            with screen.bar(length_s, "soak") as show:
                soak.last(length_s, show)
            return soak


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long it lasts")
    parser.add_argument(
        "--plant",
        type=Leak,
        choices=list(Leak),
        action="append",
        default=[],
        help="let a part of the fleet leak that, to show that it is found; may be repeated",
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
        parser.error("a soak test reads /proc, which Linux alone has; run it there")
    return options


if __name__ == "__main__":
    sys.exit(main())
