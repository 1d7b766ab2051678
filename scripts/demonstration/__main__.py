"""A durable job on real input, really killed workers, and the proof: `scripts/demo`."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.markup import escape

import recovery_journal as rj
from recovery_journal.postgres.embedded import EmbeddedServer
from scripts.demonstration.acts import UNDISTURBED, Acts, Plan
from scripts.demonstration.checks import CHECKS, short
from scripts.demonstration.evidence import Evidence, drop_and_rebuild, gather, result_digest
from scripts.demonstration.job import Statistics, job_input, standard_library
from scripts.demonstration.players import Players, Trouble
from scripts.demonstration.report import show_checks, show_timeline
from scripts.harness.fleet import Fleet
from scripts.harness.life import Setting
from scripts.harness.program import INTERRUPTED, handled, held_back, ignore_all, leave
from scripts.harness.screen import Screen

CHECKPOINT_EVERY: Final = 25
FEWEST_CHECKPOINTS: Final = 4
LIMITS: Final = rj.Limits(ttl_s=1.0, grace_s=0.3, session_grace_s=0.2, session_poll_s=0.02)
CATCH_UP_LIMIT_S: Final = 20.0
LIFE_LIMIT_S: Final = 300


def main(arguments: list[str] | None = None) -> int:
    """Perform, show the proof, and return the exit code: 0 only where every check holds."""
    options = parsed(arguments)
    screen = Screen()
    try:
        evidence = perform(job(options), screen)
    except (Trouble, rj.RecoveryJournalError) as trouble:
        screen.show(f"[red]✗[/red] [bold]ended early[/bold]: {escape(str(trouble))}")
        return 1
    except KeyboardInterrupt:
        screen.show("interrupted; every process that was started has ended")
        return INTERRUPTED
    return conclude(evidence, screen)


def perform(given: Statistics, screen: Screen) -> Evidence:
    """All acts in a new journal, and what they leave as evidence. Nothing else stays behind."""
    with ExitStack() as stack:
        stack.enter_context(handled(leave))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rj-demo-")))
        folder.chmod(0o711)  # so that root's server, which runs under another account, gets there
        introduce(screen, given)
        with held_back():  # half a server is hard to tidy up
            server = stack.enter_context(EmbeddedServer.start(folder / "server"))
        setting = Setting(dsn=server.dsn, folder=folder, life_limit_s=LIFE_LIMIT_S)
        plan = Plan(executions=folder / "executions", given=given, limits=LIMITS)
        journal = stack.enter_context(rj.open(setting.dsn, limits=LIMITS))
        # Each starts as a program of its own, which no thread of this one can disturb.
        fleet = stack.enter_context(Fleet(setting, start="spawn"))
        stack.callback(ignore_all)
        return play(plan, journal, Players(fleet), screen)


def play(plan: Plan, journal: rj.Journal, players: Players, screen: Screen) -> Evidence:
    """Both acts; then the rows are dropped and rebuilt."""
    acts = Acts(plan, players, screen)
    screen.title("1  Undisturbed: one worker")
    acts.undisturbed()
    screen.caption(f"result {short(result_digest(journal, UNDISTURBED))}")
    screen.title("2  Disturbed: five workers with faults, a sweeper, a follower")
    waking = acts.disturbed()
    rj.Follower(journal).catch_up(CATCH_UP_LIMIT_S)
    players.dismiss()
    rebuilt = drop_and_rebuild(journal)
    return gather(journal, plan, acts.struck, waking, rebuilt)


def conclude(evidence: Evidence, screen: Screen) -> int:
    """Show what was found; the exit code."""
    screen.title("3  What the log shows")
    show_timeline(screen, evidence)
    screen.title("4  What it proves")
    checks = [check(evidence) for check in CHECKS]
    show_checks(screen, checks)
    failed = [check.name for check in checks if not check.holds]
    if failed:
        screen.show(f"[red]failed, after {screen.time}: {', '.join(failed)}[/red]")
        return 1
    screen.show(f"[green]everything holds[/green], after {screen.time}")
    return 0


def introduce(screen: Screen, given: Statistics) -> None:
    """Say what this is, and which settings are not the defaults."""
    usual = rj.Limits()
    screen.title("Recovery journal: a job outlives its workers, and the log shows how")
    screen.show(
        f"Token statistics over {len(given['paths'])} Python files of the standard library: "
        f"a run step per file, a checkpoint every {given['checkpoint_every']}. "
        f"To be quick, a lease lasts {LIMITS.ttl_s:g} s and is lost "
        f"{LIMITS.grace_s:g} s later, a session that has ended {LIMITS.session_grace_s:g} s later; "
        f"the defaults are {usual.ttl_s:g} s, {usual.grace_s:g} s and {usual.session_grace_s:g} s."
    )


def job(options: argparse.Namespace) -> Statistics:
    """The job that the options describe. Raises `Trouble`."""
    given = job_input(
        standard_library(), checkpoint_every=options.checkpoint_every, file_limit=options.files
    )
    found, needed = len(given["paths"]), FEWEST_CHECKPOINTS * options.checkpoint_every
    if found < needed:
        raise Trouble(f"found {found} files below {given['root']}, needed at least {needed}")
    return given


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--files", type=int, help="only so many files, for a shorter show")
    parser.add_argument("--checkpoint-every", type=int, default=CHECKPOINT_EVERY)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
