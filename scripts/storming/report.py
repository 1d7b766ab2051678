"""The figures of a chaos test, for people and programs."""

from typing import Any, Final

import msgspec

from scripts.harness.screen import Screen
from scripts.storming.evidence import Evidence
from scripts.storming.history import Action
from scripts.storming.verdict import Violation

VIOLATIONS_SHOWN: Final = 20


def conclude(
    screen: Screen, seed: int, evidence: Evidence, violations: list[Violation]
) -> dict[str, Any]:
    """Say what was survived and what was violated; return the same as figures."""
    figures = _figures(seed, evidence, violations)
    for title in ("struck", "survived", "recorded", "checked"):
        parts = ", ".join(f"{count:,} {what}" for what, count in figures[title].items())
        screen.say(f"{title}: {parts}")
    for violation in violations[:VIOLATIONS_SHOWN]:
        screen.say(f"VIOLATION: {violation.check}: {violation.attempt_id} {violation.text}")
    if violations:
        screen.say(
            f"{len(violations)} violations; the events of their attempts lie beside the histories"
        )
    else:
        screen.say("nothing lost, nothing owned twice")
    return figures


def _figures(seed: int, evidence: Evidence, violations: list[Violation]) -> dict[str, Any]:
    survived = evidence.survived
    calls = [it for one in evidence.histories.values() for it in one]
    return {
        "case": "storm",
        "seed": seed,
        "struck": {str(kind): count for kind, count in sorted(survived.struck.items())},
        "survived": {
            "kills": survived.kill_count,
            "faults": sum(survived.struck.values()),
            "faults without a target": survived.missed,
            "connections cut": survived.cut_count,
            "server restarts": survived.restart_count,
            "rebuilds finished": evidence.rebuild_count,
            "attempts": len(evidence.attempts),
            "run steps": sum(map(len, evidence.steps.values())),
            "checkpoints": sum(map(len, evidence.checkpoints.values())),
            "events": sum(map(len, evidence.entries.values())),
        },
        "recorded": evidence.recorded,
        "checked": {
            "histories": len(evidence.histories),
            "calls": len(calls),
            "calls without a reply": sum(it.returned_ns is None for it in calls),
            "claims": sum(it.action is Action.CLAIM for it in calls),
        },
        "violations": [msgspec.to_builtins(it) for it in violations],
    }
