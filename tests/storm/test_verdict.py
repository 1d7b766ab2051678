"""Each check of a chaos test, on the evidence of a run without faults, and on altered evidence."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from scripts.storming.evidence import Attempt, Evidence
from scripts.storming.history import Action, Operation
from scripts.storming.verdict import CHECKS, violations

ID = "a-folded"
RUN_ID = f"run of {ID}"

Alter = Callable[[Evidence], Evidence]


def test_nothing_is_violated_where_nothing_was_struck(evidence: Evidence) -> None:
    assert violations(evidence) == []
    assert len(evidence.attempts) == len(evidence.histories) == 2
    assert evidence.recorded["lease-ended"] == 2
    actions = {it.action for it in evidence.histories[ID]}
    assert actions == set(Action)


def with_attempt(evidence: Evidence, **changes: object) -> Evidence:
    def changed(one: Attempt) -> Attempt:
        return replace(one, **changes) if one.attempt_id == ID else one

    return replace(evidence, attempts=tuple(map(changed, evidence.attempts)))


def with_history(
    evidence: Evidence, change: Callable[[list[Operation]], list[Operation]]
) -> Evidence:
    histories = {**evidence.histories, ID: change(evidence.histories[ID])}
    return replace(evidence, histories=histories)


def wrong(evidence: Evidence) -> Evidence:
    survived = replace(evidence.survived, wrongs=["worker-1 ended by itself with exit code 1"])
    return replace(evidence, survived=survived)


def attempt_gone(evidence: Evidence) -> Evidence:
    left = tuple(it for it in evidence.attempts if it.attempt_id != ID)
    return replace(evidence, attempts=left)


def events_gone(evidence: Evidence) -> Evidence:
    left = {key: it for key, it in evidence.entries.items() if key != ID}
    return replace(evidence, entries=left)


def last_event_gone(evidence: Evidence) -> Evidence:
    return replace(evidence, entries={**evidence.entries, ID: evidence.entries[ID][:-1]})


def dispatched_twice(evidence: Evidence) -> Evidence:
    entries = evidence.entries[ID]
    again = [it for it in entries if type(it.event).__name__ == "Dispatched"]
    return replace(evidence, entries={**evidence.entries, ID: [*entries, *again]})


def rows_differ(evidence: Evidence) -> Evidence:
    first, *others = evidence.checked
    return replace(evidence, checked=(replace(first, difference_count=1), *others))


def rows_behind(evidence: Evidence) -> Evidence:
    first, *others = evidence.checked
    return replace(evidence, checked=(replace(first, pending_count=1), *others))


def stale_step(evidence: Evidence) -> Evidence:
    *steps, last = evidence.steps[RUN_ID]
    stale = replace(last, epoch=steps[0].epoch - 1)
    return replace(evidence, steps={**evidence.steps, RUN_ID: [*steps, stale]})


def strange_output(evidence: Evidence) -> Evidence:
    first, *steps = evidence.steps[RUN_ID]
    other = replace(first, output=steps[0].output)
    return replace(evidence, steps={**evidence.steps, RUN_ID: [other, *steps]})


def last_step_gone(evidence: Evidence) -> Evidence:
    return replace(evidence, steps={**evidence.steps, RUN_ID: evidence.steps[RUN_ID][:-1]})


def first_step_gone(evidence: Evidence) -> Evidence:
    return replace(evidence, steps={**evidence.steps, RUN_ID: evidence.steps[RUN_ID][1:]})


def checkpoints_gone(evidence: Evidence) -> Evidence:
    return replace(evidence, checkpoints={})


def zombie(evidence: Evidence) -> Evidence:
    """The first owner writes again, after the second has begun."""

    def also(operations: list[Operation]) -> list[Operation]:
        granted = next(it for it in operations if it.action is Action.ACQUIRE)
        beat = next(it for it in operations if it.action is Action.HEARTBEAT)
        last = operations[-1].invoked_ns
        late = replace(beat, epoch=granted.epoch, invoked_ns=last + 1, returned_ns=last + 2)
        return [*operations, late]

    return with_history(evidence, also)


ALTERED: dict[str, tuple[str, Alter]] = {
    "a process failed": ("no process failed", wrong),
    "an attempt is gone": ("no attempt lost", attempt_gone),
    "an attempt's events are gone": ("no attempt lost", events_gone),
    "an attempt is not finished": ("no attempt lost", lambda it: with_attempt(it, status="ready")),
    "another result": (
        "same results",
        lambda it: with_attempt(it, result_digest="cs1:another"),
    ),
    "a lease row without its last event": ("leases agree with log", last_event_gone),
    "a lease row of another epoch": (
        "leases agree with log",
        lambda it: with_attempt(it, epoch=1_000_000),
    ),
    "an owner twice": ("leases agree with log", dispatched_twice),
    "rows that differ": ("projections agree with log", rows_differ),
    "rows that were not folded": ("projections agree with log", rows_behind),
    "a run step of an older owner": ("no stale write", stale_step),
    "a run step with another output": ("no stale write", strange_output),
    "a run step in the middle gone": ("no stale write", first_step_gone),
    "an accepted run step gone": ("no accepted write lost", last_step_gone),
    "an accepted checkpoint gone": ("no accepted write lost", checkpoints_gone),
    "a write of a zombie accepted": ("linearizable", zombie),
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_must_not_be_is_found(evidence: Evidence, name: str) -> None:
    check, alter = ALTERED[name]

    found = violations(alter(evidence))

    assert check in {it.check for it in found}, found


def test_every_check_is_tried() -> None:
    names = {check.__name__.replace("_", " ") for check in CHECKS}

    assert names == {check for check, _ in ALTERED.values()}
