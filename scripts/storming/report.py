"""What a person sees of a storm, and a program by `--json`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.storming.evidence import Evidence
from scripts.storming.history import Action
from scripts.storming.storm import Survived
from scripts.storming.verdict import Violation

LINE_S: Final = 10.0  # between lines where there is no terminal
FRAME_S: Final = 0.2
VIOLATIONS_SHOWN: Final = 20


class Report:
    """Speaks to people on standard error, so that standard output is `--json`'s."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._console = Console(stderr=True, highlight=False)
        self._spoken_at = 0.0

    def say(self, text: str) -> None:
        """A sentence."""
        self._console.print(escape(text), soft_wrap=True)

    @contextmanager
    def bar(self, total_s: float, what: str) -> Iterator[Any]:
        """A progress bar on a terminal, else a line now and then. It has no thread of its own:
        the storm forks."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        is_terminal = self._console.is_terminal
        with Progress(
            *columns, console=self._console, auto_refresh=False, disable=not is_terminal
        ) as bar:
            task = bar.add_task(what, total=total_s, told="")

            def show(spent_s: float, survived: Survived) -> None:
                now = time.monotonic()
                if now < self._spoken_at + (FRAME_S if is_terminal else LINE_S):
                    return
                self._spoken_at = now
                told = f"{survived.kill_count} killed, {survived.restart_count} server restarts"
                bar.update(task, completed=min(spent_s, total_s), told=told, refresh=is_terminal)
                if not is_terminal:
                    self.say(f"{what}: {spent_s:.0f} s of {total_s:.0f} s, {told}")

            yield show

    def conclude(
        self, seed: int, evidence: Evidence, violations: list[Violation], folder: Path
    ) -> None:
        """What was survived, and what was not."""
        figures = _figures(seed, evidence, violations)
        if self._is_json:
            sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
            sys.stdout.flush()
        for title in ("struck", "survived", "told", "checked"):
            parts = ", ".join(f"{count:,} {what}" for what, count in figures[title].items())
            self.say(f"{title}: {parts}")
        for violation in violations[:VIOLATIONS_SHOWN]:
            self.say(f"VIOLATION: {violation.check}: {violation.attempt_id} {violation.text}")
        if violations:
            self.say(
                f"{len(violations)} violations; the events of the attempts concerned lie beside "
                f"the histories, in {folder}"
            )
        else:
            self.say("nothing lost, nothing owned twice")


def _figures(seed: int, evidence: Evidence, violations: list[Violation]) -> dict[str, Any]:
    survived = evidence.survived
    calls = [it for one in evidence.histories.values() for it in one]
    return {
        "case": "storm",
        "seed": seed,
        "struck": {str(weapon): count for weapon, count in sorted(survived.struck.items())},
        "survived": {
            "kills": survived.kill_count,
            "blows": sum(survived.struck.values()),
            "blows that found nobody": survived.missed,
            "connections cut": survived.cut_count,
            "server restarts": survived.restart_count,
            "rebuilds finished": evidence.rebuild_count,
            "attempts": len(evidence.attempts),
            "run steps": sum(map(len, evidence.steps.values())),
            "checkpoints": sum(map(len, evidence.checkpoints.values())),
            "events": sum(map(len, evidence.entries.values())),
        },
        "told": evidence.told,
        "checked": {
            "histories": len(evidence.histories),
            "calls": len(calls),
            "calls without an answer": sum(it.returned_ns is None for it in calls),
            "claims": sum(it.action is Action.CLAIM for it in calls),
        },
        "violations": [msgspec.to_builtins(it) for it in violations],
    }
