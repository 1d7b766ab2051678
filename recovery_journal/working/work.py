"""What a worker's child does: run the user's function under the lease, and say how it ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from domain.errors import LeaseLost, Retry, StreamUnusable
from domain.events import Ending
from domain.lease import LossReason
from domain.wording import message_of
from recovery_journal.leases.loading import Claim
from recovery_journal.working.child import Word
from recovery_journal.working.outcome import Outcome

if TYPE_CHECKING:
    from recovery_journal.leases.lease import Lease

Function = Callable[[Claim], Any]
"""The user's: it is given a claim, and what it returns is the attempt's result."""

RETRY_S: Final = 0.1

Answer = TypeVar("Answer")

OUTCOMES: Final[dict[Ending | LossReason | None, Outcome]] = {
    Ending.COMPLETED: Outcome.COMPLETED,
    Ending.FAILED: Outcome.FAILED,
    Ending.WAITING: Outcome.WAITING,
    LossReason.HANDED_BACK: Outcome.HANDED_BACK,
}


def work(function: Function, claim: Claim) -> Word:
    """Run the function and end the lease with its result or its error.

    A function that ended the lease itself is left alone. What the server cannot take just now is
    no fault of the function's, so it fails no attempt: the worker gives the lease up instead.
    """
    try:
        return _finish(function, claim)
    except LeaseLost as error:
        return _word(Outcome.LOST, error)
    except (Retry, StreamUnusable) as error:
        traceback.print_exc()
        return _word(Outcome.INTERRUPTED, error)
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is recorded
        traceback.print_exc()
        return _fail(claim.lease, error)


def ending_of(lease: Lease) -> Outcome | None:
    """How the lease's own worker ended it; None where it did not.

    A heartbeat cannot tell this from a loss: both find no held lease with that fence.
    """
    return OUTCOMES.get(lease.own_ending())


def _finish(function: Function, claim: Claim) -> Word:
    result = function(claim)
    lease = claim.lease
    outcome = _insisting(lease, lambda: ending_of(lease))
    if outcome is None:
        _insisting(lease, lambda: lease.complete(result))
    return Word(outcome=outcome or Outcome.COMPLETED)


def _fail(lease: Lease, error: BaseException) -> Word:
    try:
        _insisting(lease, lambda: lease.fail(error))
    except LeaseLost as lost:
        return _word(Outcome.LOST, lost)
    except (Retry, StreamUnusable) as problem:
        return _word(Outcome.INTERRUPTED, problem)
    return _word(Outcome.FAILED, error)


def _insisting(lease: Lease, call: Callable[[], Answer]) -> Answer:
    """Ask again for as long as a lease holds without renewal: the work is done, and only the
    server is away. The worker ends this sooner where it must."""
    deadline = time.monotonic() + lease.ttl_s
    while True:
        try:
            return call()
        except Retry:
            if time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


def _word(outcome: Outcome, error: BaseException) -> Word:
    return Word(outcome=outcome, error_class=type(error).__name__, message=message_of(error))
