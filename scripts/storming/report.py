"""What a person sees of a storm, and a program by `--json`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from scripts.storming.evidence import Evidence
from scripts.storming.history import Action
from scripts.storming.screen import Screen
from scripts.storming.storm import Survived
from scripts.storming.verdict import Violation

VIOLATIONS_SHOWN: Final = 20


class Report:
    """Tells of a storm while it rages, and what came of it."""

    def __init__(self, *, is_json: bool) -> None:
        self._screen = Screen(is_json=is_json)
        self.say = self._screen.say

    @contextmanager
    def bar(self, total_s: float, what: str) -> Iterator[Callable[[float, Survived], None]]:
        """Progress, to be told how long it has gone on and what was struck."""
        with self._screen.bar(total_s, what) as show:
            yield lambda spent_s, survived: show(spent_s, _briefly(survived))

    def conclude(
        self, seed: int, evidence: Evidence, violations: list[Violation], folder: Path
    ) -> None:
        """What was survived, and what was not."""
        figures = _figures(seed, evidence, violations)
        self._screen.show_json(figures)
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


def _briefly(survived: Survived) -> str:
    return f"{survived.kill_count} killed, {survived.restart_count} server restarts"


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
