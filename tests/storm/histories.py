"""Histories of one attempt, drawn as people draw them: who did what, from when until when."""

import itertools
from typing import Any

from scripts.storming.history import Action, Answer, Operation

_calls = itertools.count(1)


def call(
    action: Action,
    begins: int,
    ends: int | None,
    *,
    answer: Answer | None = None,
    **found: Any,
) -> Operation:
    """One call; without an end its answer is unknown."""
    if answer is None:
        answer = Answer.UNKNOWN if ends is None else Answer.DONE
    return Operation(
        action=action,
        process="p",
        call=next(_calls),
        invoked_ns=begins,
        returned_ns=ends,
        answer=answer,
        attempt_id="a-1",
        **found,
    )


def acquire(begins: int, ends: int | None, epoch: int = 1) -> Operation:
    return call(Action.ACQUIRE, begins, ends, epoch=epoch)


def claim(begins: int, ends: int | None, epoch: int, ordinal: int = 0) -> Operation:
    return call(Action.CLAIM, begins, ends, epoch=epoch, ordinal=ordinal)


def record(begins: int, ends: int | None, epoch: int, ordinal: int) -> Operation:
    return call(Action.RECORD, begins, ends, epoch=epoch, ordinal=ordinal)


def announce(begins: int, ends: int | None, epoch: int, ordinal: int) -> Operation:
    return call(Action.ANNOUNCE, begins, ends, epoch=epoch, ordinal=ordinal)


def checkpoint(begins: int, ends: int | None, epoch: int, ordinal: int, count: int) -> Operation:
    return call(
        Action.CHECKPOINT, begins, ends, epoch=epoch, ordinal=ordinal, checkpoint_count=count
    )


def heartbeat(begins: int, ends: int | None, epoch: int, ordinal: int = 0) -> Operation:
    return call(Action.HEARTBEAT, begins, ends, epoch=epoch, ordinal=ordinal)


def complete(begins: int, ends: int | None, epoch: int, digest: str = "d") -> Operation:
    return call(Action.COMPLETE, begins, ends, epoch=epoch, digest=digest)


def give_up(begins: int, ends: int | None, epoch: int) -> Operation:
    return call(Action.GIVE_UP, begins, ends, epoch=epoch)


def refused(action: Action, begins: int, ends: int, epoch: int) -> Operation:
    return call(action, begins, ends, answer=Answer.REFUSED, epoch=epoch)


def look(begins: int, ends: int, digest: str = "") -> Operation:
    return call(Action.LOOK, begins, ends, digest=digest)
