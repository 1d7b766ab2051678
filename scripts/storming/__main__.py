"""Chaos test: random faults on real processes and a server, then the proof: `scripts/storm`."""

import argparse
import sys
from pathlib import Path
from random import SystemRandom
from typing import Final

import msgspec

import recovery_journal as rj
from scripts.harness.life import Setting
from scripts.harness.parts import LIMITS
from scripts.harness.program import run, started_fleet, started_server
from scripts.harness.screen import Screen
from scripts.storming.evidence import Evidence, gather
from scripts.storming.member import PARTS
from scripts.storming.server import StormServer
from scripts.storming.storm import CALM_LIMIT_S, Storm
from scripts.storming.verdict import Violation, conclude, violations

SEEDS: Final = 2**31


def main(arguments: list[str] | None = None) -> int:
    """Inject faults, and judge the evidence; 0 only where nothing is violated."""
    options = parsed(arguments)
    screen = Screen(for_figures=True)

    def act(folder: Path) -> bool:
        evidence = disturbed(options.seed, options.minutes * 60, folder, screen)
        found = violations(evidence)
        figures = conclude(screen, options.seed, evidence, found)
        if options.json:
            screen.show_json(figures)
        keep(evidence, found, folder)
        return not found

    return run("storm", screen, act)


def disturbed(seed: int, length_s: float, folder: Path, screen: Screen) -> Evidence:
    """A chaos test from beginning to end, and its evidence. No process is left behind."""
    with started_server(StormServer, folder) as server:
        also = "" if server.disk else "; no disk of its own to fill: that needs root on Linux"
        screen.say(f"seed {seed}: {length_s:.0f} s{also}")
        setting = Setting(dsn=server.dsn, folder=folder)
        rj.open(setting.dsn, schema=setting.schema, limits=LIMITS).close()
        with started_fleet(setting, PARTS) as fleet:
            storm = Storm(setting, server, fleet)
            with screen.bar(length_s, "faults") as show:
                storm.rage(seed, length_s, show)
            with screen.bar(CALM_LIMIT_S, "recovery") as show:
                storm.calm(show)
            return gather(setting, storm.survived)


def keep(evidence: Evidence, found: list[Violation], folder: Path) -> None:
    """Write the events of every attempt of a violation beside the histories."""
    for attempt_id in {it.attempt_id for it in found if it.attempt_id}:
        lines = [
            msgspec.json.encode((it.position, it.recorded_at, it.event))
            for it in evidence.entries.get(attempt_id, [])
        ]
        (folder / f"{attempt_id}.events.jsonl").write_bytes(b"\n".join(lines))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="for how long faults come")
    parser.add_argument(
        "--seed",
        type=int,
        default=SystemRandom().randrange(SEEDS),
        help="of the plan of faults; drawn if none is given",
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
