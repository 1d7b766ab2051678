"""One attempt as an object that does one thing after the other: who owns it, and how far it is.

A history of the real one must fit to it. Losses are not in the history: an owner is over as soon
as another one is there, or as one of its own writes was refused.
"""

from collections.abc import Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from scripts.storming.history import Action, Answer, Operation
from scripts.storming.linearizability import Verdict, linearized


class Ownership(Struct, frozen=True, kw_only=True):
    """`epoch` is that of the last owner, 0 before the first; `is_held` says whether it may still
    write. `result` is the digest of the attempt's result."""

    epoch: int = 0
    is_held: bool = False
    ordinal: int = 0
    checkpoint_count: int = 0
    result: str = ""


def judged(operations: Sequence[Operation]) -> Verdict[Ownership, Operation]:
    """Whether what was done to one attempt could have been done one after the other."""
    return linearized(operations, Ownership(), happened)


def happened(before: Ownership, operation: Operation) -> Ownership | None:
    """The attempt after an operation; None where it cannot happen now."""
    if operation.answer is Answer.REFUSED:
        return _refused(before, operation)
    match operation.action:
        case Action.ACQUIRE:
            if before.epoch:
                return None
            return Ownership(epoch=operation.epoch or 1, is_held=True)
        case Action.CLAIM:
            return _claimed(before, operation)
        case Action.LOOK:
            return before if operation.digest == before.result else None
        case Action.COMPLETE:
            return _completed(before, operation)
        case _:
            if not _is_owner(before, operation):
                return None
            return _written(before, operation)


def _is_owner(before: Ownership, operation: Operation) -> bool:
    return before.is_held and operation.epoch == before.epoch


def _refused(before: Ownership, operation: Operation) -> Ownership | None:
    """The lease is void for ever, whether or not there is another owner already."""
    if operation.epoch > before.epoch:
        return None
    return replace(before, is_held=before.is_held and operation.epoch < before.epoch)


def _claimed(before: Ownership, operation: Operation) -> Ownership | None:
    """The next owner is handed all that was accepted before."""
    found = (operation.ordinal, operation.checkpoint_count)
    is_handed_all = found == (before.ordinal, before.checkpoint_count)
    if before.result or operation.epoch <= before.epoch or not before.epoch or not is_handed_all:
        return None
    return replace(before, epoch=operation.epoch, is_held=True)


def _completed(before: Ownership, operation: Operation) -> Ownership | None:
    """Its own owner may repeat it, as after a lost reply."""
    if _is_owner(before, operation):
        return replace(before, is_held=False, result=operation.digest)
    is_same = operation.epoch == before.epoch and operation.digest == before.result
    return before if is_same else None


def _written(before: Ownership, operation: Operation) -> Ownership | None:
    match operation.action:
        case Action.HEARTBEAT:
            if operation.answer is Answer.UNKNOWN:
                return before
            found = (operation.ordinal, operation.checkpoint_count)
            return before if found == (before.ordinal, before.checkpoint_count) else None
        case Action.ANNOUNCE:
            return before if operation.ordinal == before.ordinal + 1 else None
        case Action.RECORD:
            is_next = operation.ordinal == before.ordinal + 1
            return replace(before, ordinal=operation.ordinal) if is_next else None
        case Action.CHECKPOINT:
            is_next = operation.checkpoint_count == before.checkpoint_count + 1
            after = replace(before, checkpoint_count=operation.checkpoint_count)
            return after if is_next and operation.ordinal == before.ordinal else None
        case Action.GIVE_UP:
            return replace(before, is_held=False)
        case Action.ACQUIRE | Action.CLAIM | Action.COMPLETE | Action.LOOK:
            raise AssertionError("these do not need an owner")
        case _:
            assert_never(operation.action)
