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
    is_owner = before.is_held and operation.epoch == before.epoch
    found = (operation.ordinal, operation.checkpoint_count)
    is_up_to_date = found == (before.ordinal, before.checkpoint_count)
    is_next_step = operation.ordinal == before.ordinal + 1
    match operation.action:
        case Action.ACQUIRE:
            return None if before.epoch else Ownership(epoch=operation.epoch or 1, is_held=True)
        case Action.CLAIM:  # the next owner is handed all that was accepted before
            is_open = 0 < before.epoch < operation.epoch and not before.result
            after = replace(before, epoch=operation.epoch, is_held=True)
            return after if is_open and is_up_to_date else None
        case Action.LOOK:
            return before if operation.digest == before.result else None
        case Action.COMPLETE if is_owner:
            return replace(before, is_held=False, result=operation.digest)
        case Action.COMPLETE:  # its own owner may repeat it, as after a lost reply
            is_same = operation.epoch == before.epoch and operation.digest == before.result
            return before if is_same else None
        case _ if not is_owner:
            return None
        case Action.HEARTBEAT:
            return before if is_up_to_date or operation.answer is Answer.UNKNOWN else None
        case Action.ANNOUNCE:
            return before if is_next_step else None
        case Action.RECORD:
            return replace(before, ordinal=operation.ordinal) if is_next_step else None
        case Action.CHECKPOINT:
            is_next = found == (before.ordinal, before.checkpoint_count + 1)
            return (
                replace(before, checkpoint_count=before.checkpoint_count + 1) if is_next else None
            )
        case Action.GIVE_UP:
            return replace(before, is_held=False)
        case _:
            assert_never(operation.action)


def _refused(before: Ownership, operation: Operation) -> Ownership | None:
    """The lease is void for ever, whether or not there is another owner already."""
    if operation.epoch > before.epoch:
        return None
    return replace(before, is_held=before.is_held and operation.epoch < before.epoch)
