"""Real processes on a real server, struck down at random, and the proof: `scripts/storm`."""

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from typing import Final

import msgspec

import recovery_journal as rj
from scripts.demonstration.interruption import handled, held_back, ignore_all, leave
from scripts.storming.evidence import Evidence, gather
from scripts.storming.fleet import Fleet
from scripts.storming.life import LIMITS, Setting
from scripts.storming.member import PARTS
from scripts.storming.report import Report
from scripts.storming.server import StormServer
from scripts.storming.storm import CALM_LIMIT_S, Storm
from scripts.storming.verdict import Violation, violations

SEEDS: Final = 2**31
INTERRUPTED: Final = 130


def main(arguments: list[str] | None = None) -> int:
    """Let a storm rage, and judge what it leaves; 0 only where nothing is violated."""
    options = parsed(arguments)
    report = Report(is_json=options.json)
    folder = Path(tempfile.mkdtemp(prefix="rj-storm-"))
    is_kept = True
    try:
        with handled(leave):
            evidence = raged(options.seed, options.minutes * 60, folder, report)
            found = violations(evidence)
        is_kept = bool(found)
        report.conclude(options.seed, evidence, found, folder)
        keep(evidence, found, folder)
        return 1 if found else 0
    except KeyboardInterrupt:
        is_kept = False
        report.say("broken off; every process that was started is gone")
        return INTERRUPTED
    finally:
        if is_kept:
            report.say(f"histories and logs are in {folder}")
        else:
            shutil.rmtree(folder)


def raged(seed: int, length_s: float, folder: Path, report: Report) -> Evidence:
    """A storm from beginning to end, and what it leaves. No process is left behind."""
    data = folder / "server"
    data.mkdir()
    with ExitStack() as stack:
        with held_back():  # half a server is hard to tidy up
            server = stack.enter_context(StormServer(data))
        stack.callback(keep_log, server, folder)
        said = "" if server.disk else "; no disk of its own to fill: that needs root on Linux"
        report.say(f"seed {seed}: {length_s:.0f} s{said}")
        setting = Setting(dsn=server.dsn, folder=folder)
        rj.open(setting.dsn, schema=setting.schema, limits=LIMITS).close()
        with held_back():  # what is forked here would break off as well
            fleet = stack.enter_context(Fleet(setting, PARTS))
        stack.callback(ignore_all)
        storm = Storm(setting, server, fleet)
        with report.bar(length_s, "storm") as show:
            storm.rage(seed, length_s, show)
        with report.bar(CALM_LIMIT_S, "calm") as show:
            storm.calm(show)
        return gather(setting, storm.survived)


def keep_log(server: StormServer, folder: Path) -> None:
    """What the server said, outside of its own disk."""
    if server.cluster.log.exists():
        shutil.copyfile(server.cluster.log, folder / "server.log")


def keep(evidence: Evidence, found: list[Violation], folder: Path) -> None:
    """The events of every attempt that something is wrong with, beside the histories."""
    for attempt_id in {it.attempt_id for it in found if it.attempt_id}:
        lines = [
            msgspec.json.encode((it.position, it.recorded_at, it.event))
            for it in evidence.entries.get(attempt_id, [])
        ]
        (folder / f"{attempt_id}.events.jsonl").write_bytes(b"\n".join(lines))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="scripts/storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long it rages")
    parser.add_argument("--seed", type=int, help="of the plan of blows; drawn if none is given")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(SEEDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
