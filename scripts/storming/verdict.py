"""The invariants after a chaos test; each check names every attempt that breaks it. The report."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from recovery_journal.domain.digest import chain_next, chain_origin, payload_digest
from recovery_journal.domain.events import Dispatched, LeaseGranted, Quarantined
from recovery_journal.domain.recovery import Stage, project
from scripts.harness.screen import Screen
from scripts.storming.evidence import Attempt, Evidence
from scripts.storming.history import Action, Answer, Operation
from scripts.storming.ownership import judged


class Violation(Struct, frozen=True, kw_only=True):
    """A broken invariant, and of which attempt, where it is one attempt's."""

    check: str
    text: str
    attempt_id: str = ""


Check = Callable[[Evidence], Iterator[tuple[str, str]]]
"""Yields attempt and text of each violation."""


def no_process_failed(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """No process ended by itself, none failed to end, and all was finished in time."""
    for wrong in evidence.survived.wrongs:
        yield "", wrong


def no_attempt_lost(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Every granted attempt is in the lease store and in the log, and is completed."""
    known = {attempt.attempt_id for attempt in evidence.attempts}
    for attempt_id in sorted(set(evidence.histories) | set(evidence.entries)):
        acquired = _done(evidence, attempt_id, Action.ACQUIRE)
        if (acquired or attempt_id in evidence.entries) and attempt_id not in known:
            yield attempt_id, "was granted, and has no lease row"
        if attempt_id in known and attempt_id not in evidence.entries:
            yield attempt_id, "has a lease row, and no event"
    for attempt in evidence.attempts:
        if attempt.status != "completed":
            yield attempt.attempt_id, f"is {attempt.status}, not completed{_why(evidence, attempt)}"


def same_results(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Every result is that of an undisturbed execution."""
    for attempt in evidence.attempts:
        if attempt.status == "completed" and attempt.result_digest != attempt.expected_digest:
            found, needed = attempt.result_digest, attempt.expected_digest
            yield attempt.attempt_id, f"has the result {found}, undisturbed {needed}"


def leases_agree_with_log(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Each lease row agrees with its stream, and epochs only grow."""
    for attempt in evidence.attempts:
        entries = evidence.entries.get(attempt.attempt_id, [])
        recovery = project(None, (entry.event for entry in entries))
        if recovery is None:
            continue
        found = (attempt.version, attempt.epoch, attempt.result_digest)
        ended = getattr(recovery.ended, "result_digest", None)
        logged = (recovery.version, recovery.fence.epoch, ended)
        if found != logged:
            yield attempt.attempt_id, f"has {found} in its lease row, and {logged} in the log"
        if attempt.status == "completed" and recovery.stage is not Stage.ENDED:
            yield attempt.attempt_id, f"is completed, and {recovery.stage} in the log"
        granted = _owners(evidence, attempt.attempt_id)
        if granted != sorted(set(granted)):
            yield attempt.attempt_id, f"had owners with the epochs {granted}"


def projections_agree_with_log(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Every projection's rows are what a fold from scratch makes of the log."""
    for one in evidence.checked:
        if not one.is_right or one.pending_count:
            text = f"{one.difference_count} rows differ and {one.pending_count} are pending"
            yield "", f"{one.projection}: {text}: {one.differences}"


def no_stale_write(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Run steps and checkpoints stand in the order of their owners' epochs, each under the epoch
    of an owner that the log knows; the chain leads through all of them."""
    for attempt in evidence.attempts:
        granted = set(_owners(evidence, attempt.attempt_id))
        steps = evidence.steps.get(attempt.run_id, [])
        for what, found in (
            ("run steps", steps),
            ("checkpoints", evidence.checkpoints.get(attempt.run_id, [])),
        ):
            epochs = [one.epoch for one in found]
            if epochs != sorted(epochs) or not granted.issuperset(epochs):
                yield attempt.attempt_id, f"has {what} of the epochs {epochs}, owners {granted}"
            if [one.ordinal for one in found] != list(range(1, len(found) + 1)):
                yield attempt.attempt_id, f"has {what} {[one.ordinal for one in found]}"
        chain = chain_origin(attempt.run_id, attempt.input_digest)
        for step in steps:
            made = payload_digest(step.output)
            chain = chain_next(chain, ordinal=step.ordinal, name=step.name, output_digest=made)
            if chain != step.chain:
                yield attempt.attempt_id, f"has a broken chain at run step {step.ordinal}"
                break


def no_accepted_write_lost(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Every write that was acknowledged to a worker is in the store, under its epoch."""
    for attempt in evidence.attempts:
        steps = {(it.ordinal, it.epoch) for it in evidence.steps.get(attempt.run_id, [])}
        saved = {(it.ordinal, it.epoch) for it in evidence.checkpoints.get(attempt.run_id, [])}
        for it in _done(evidence, attempt.attempt_id, Action.RECORD):
            if (it.ordinal, it.epoch) not in steps:
                yield attempt.attempt_id, f"lost run step {it.ordinal} of epoch {it.epoch}"
        for it in _done(evidence, attempt.attempt_id, Action.CHECKPOINT):
            if (it.checkpoint_count, it.epoch) not in saved:
                yield (
                    attempt.attempt_id,
                    f"lost checkpoint {it.checkpoint_count} of epoch {it.epoch}",
                )


def linearizable(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """The calls on an attempt and their replies can have happened one after the other, by one owner
    at a time."""
    for attempt_id, operations in evidence.histories.items():
        verdict = judged(operations)
        if not verdict.is_decided:
            yield attempt_id, f"has a history too tangled to judge, of {len(operations)} calls"
        elif not verdict.is_linearizable:
            stuck = "; ".join(described(it) for it in verdict.stuck)
            yield attempt_id, f"at {verdict.state} none of these can have happened: {stuck}"


CHECKS: Final[tuple[Check, ...]] = (
    no_process_failed,
    no_attempt_lost,
    same_results,
    leases_agree_with_log,
    projections_agree_with_log,
    no_stale_write,
    no_accepted_write_lost,
    linearizable,
)


def violations(evidence: Evidence) -> list[Violation]:
    """All of all checks."""
    return [
        Violation(check=check.__name__.replace("_", " "), text=text, attempt_id=attempt_id)
        for check in CHECKS
        for attempt_id, text in check(evidence)
    ]


def described(operation: Operation) -> str:
    """One call, in a line."""
    return (
        f"{operation.process} {operation.action} {operation.answer}: epoch {operation.epoch}, "
        f"run step {operation.ordinal}, checkpoint {operation.checkpoint_count}, "
        f"{operation.invoked_ns}-{operation.returned_ns or '?'}"
    )


def _done(evidence: Evidence, attempt_id: str, action: Action) -> list[Operation]:
    return [
        it
        for it in evidence.histories.get(attempt_id, [])
        if it.action is action and it.answer is Answer.DONE
    ]


def _owners(evidence: Evidence, attempt_id: str) -> list[int]:
    """The epochs of all owners, in the order of the log."""
    events = (entry.event for entry in evidence.entries.get(attempt_id, []))
    return [it.fence.epoch for it in events if isinstance(it, LeaseGranted | Dispatched)]


def _why(evidence: Evidence, attempt: Attempt) -> str:
    entries = evidence.entries.get(attempt.attempt_id, [])
    if not entries:
        return ""
    last = entries[-1].event
    why = last.explanation if isinstance(last, Quarantined) else last.reason
    return f": {type(last).__name__} {why}"


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
