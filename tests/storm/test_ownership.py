"""Histories of one attempt that can have happened, and histories that cannot."""

import pytest

from scripts.storming.history import Action, Operation
from scripts.storming.ownership import judged
from tests.storm.histories import (
    acquire,
    announce,
    checkpoint,
    claim,
    complete,
    give_up,
    heartbeat,
    look,
    record,
    refused,
)

HELD = (acquire(0, 1),)
LOST = (*HELD, record(2, 3, 1, 1))

GOOD: dict[str, tuple[Operation, ...]] = {
    "nothing": (),
    "an undisturbed run": (*LOST, checkpoint(4, 5, 1, 1, 1), complete(6, 7, 1), look(8, 9, "d")),
    "a worker dies and another resumes": (*LOST, claim(10, 11, 2, 1), complete(12, 13, 2)),
    "a sleeper is refused": (
        *LOST,
        claim(10, 11, 2, 1),
        refused(Action.RECORD, 12, 13, 1),
        record(14, 15, 2, 2),
    ),
    "a sleeper is refused before anybody else is there": (
        *HELD,
        refused(Action.HEARTBEAT, 2, 3, 1),
        claim(10, 11, 2),
    ),
    "the owner's write ends after the next claim has begun": (
        *HELD,
        record(2, 20, 1, 1),
        claim(10, 30, 2, 1),
    ),
    "a write without an answer happened": (*HELD, record(2, None, 1, 1), claim(10, 11, 2, 1)),
    "a write without an answer never happened": (*HELD, record(2, None, 1, 1), claim(10, 11, 2)),
    "a write without an answer happens late": (
        *HELD,
        record(2, None, 1, 1),
        look(4, 5),
        heartbeat(6, 7, 1),
        heartbeat(8, 9, 1, 1),
    ),
    "a completion without an answer happened": (*HELD, complete(2, None, 1), look(10, 11, "d")),
    "a completion without an answer never happened": (
        *HELD,
        complete(2, None, 1),
        look(10, 11),
        claim(12, 13, 2),
        complete(14, 15, 2),
        look(16, 17, "d"),
    ),
    "a completion is asked for again": (*HELD, complete(2, None, 1), complete(4, 5, 1)),
    "a grant without an answer is claimed by another": (acquire(0, None, 0), claim(10, 11, 2)),
    "a lease is handed back": (*LOST, give_up(4, 5, 1), claim(10, 11, 2, 1)),
    "heartbeats beside writes": (
        *HELD,
        record(2, 10, 1, 1),
        heartbeat(3, 4, 1),
        heartbeat(5, 6, 1, 1),
    ),
    "two owners at once, of whom one writes nothing": (
        *HELD,
        claim(10, 11, 2),
        record(12, 13, 2, 1),
    ),
}

BAD: dict[str, tuple[Operation, ...]] = {
    "two owners at once": (
        *HELD,
        claim(10, 11, 2),
        record(12, 13, 2, 1),
        record(14, 15, 1, 2),
        record(16, 17, 2, 3),
    ),
    "a stale write is accepted": (*HELD, claim(10, 11, 2), record(12, 13, 1, 1)),
    "a stale checkpoint is accepted": (
        *LOST,
        claim(10, 11, 2, 1),
        checkpoint(12, 13, 1, 1, 1),
    ),
    "a stale announcement is accepted": (*HELD, claim(10, 11, 2), announce(12, 13, 1, 1)),
    "a stale heartbeat is accepted": (*HELD, claim(10, 11, 2), heartbeat(12, 13, 1)),
    "a stale hand-back is accepted": (*HELD, claim(10, 11, 2), give_up(12, 13, 1)),
    "a refused owner writes after all": (
        *HELD,
        refused(Action.HEARTBEAT, 2, 3, 1),
        record(4, 5, 1, 1),
    ),
    "a write after the hand-back": (*HELD, give_up(2, 3, 1), record(4, 5, 1, 1)),
    "a completion twice": (*HELD, claim(10, 11, 2), complete(12, 13, 2), complete(14, 15, 1, "e")),
    "a completion twice, the same by two": (
        *HELD,
        claim(10, 11, 2),
        complete(12, 13, 2),
        complete(14, 15, 1),
    ),
    "a completion twice, another by the same": (*HELD, complete(2, 3, 1), complete(4, 5, 1, "e")),
    "an epoch goes back": (*HELD, claim(10, 11, 3), claim(12, 13, 2)),
    "an epoch is given twice": (*HELD, claim(10, 11, 2), claim(12, 13, 2)),
    "a result is seen before it is written": (*HELD, look(2, 3, "d"), complete(4, 5, 1)),
    "a result without a write": (*HELD, look(2, 3, "d")),
    "a lost completion": (*HELD, complete(2, 3, 1), look(4, 5)),
    "a completed attempt is claimed": (*HELD, complete(2, 3, 1), claim(10, 11, 2)),
    "another result than the one completed": (*HELD, complete(2, 3, 1), look(4, 5, "e")),
    "a lost run step": (*LOST, claim(10, 11, 2, 0)),
    "a lost checkpoint": (*LOST, checkpoint(4, 5, 1, 1, 1), claim(10, 11, 2, 1)),
    "a run step recorded twice": (*LOST, record(4, 5, 1, 1)),
    "a run step left out": (*HELD, record(2, 3, 1, 2)),
    "a recorded step is begun again": (*LOST, claim(10, 11, 2, 1), announce(12, 13, 2, 1)),
    "a heartbeat that sees an older state": (*LOST, heartbeat(4, 5, 1, 0)),
    "a step that a dead worker never sent": (*HELD, claim(10, 11, 2, 1)),
    "a step that is there, gone, and there again": (
        *HELD,
        record(2, None, 1, 1),
        claim(10, 11, 2, 1),
        claim(12, 13, 3, 0),
    ),
    "an attempt acquired twice": (*HELD, acquire(2, 3, 2)),
    "a claim of what was never acquired": (claim(10, 11, 2),),
    "a claim by somebody who is refused before": (*HELD, refused(Action.RECORD, 2, 3, 2)),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_happened_is_accepted(name: str) -> None:
    verdict = judged(GOOD[name])

    assert verdict.is_linearizable, verdict


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_happened_is_found(name: str) -> None:
    verdict = judged(BAD[name])

    assert verdict.is_decided
    assert not verdict.is_linearizable, verdict.order
    assert verdict.stuck, "it says where"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_stays_bad_whatever_else_happens(name: str) -> None:
    without_an_answer = (complete(3, None, 9), record(3, None, 9, 1), heartbeat(3, None, 1))

    assert not judged((*BAD[name], *without_an_answer)).is_linearizable
