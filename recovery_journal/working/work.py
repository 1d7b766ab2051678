"""What a worker's child does: run the user's function under the lease, and say how it ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from domain.errors import LeaseLost, Retry
from domain.events import Ending, LeaseEnded
from domain.lease import LossReason
from domain.wording import class_of, message_of
from recovery_journal.leases.loading import Claim
from recovery_journal.working.child import Word
from recovery_journal.working.outcome import Outcome

if TYPE_CHECKING:
    from recovery_journal.journal import Journal
    from recovery_journal.leases.lease import Lease

Function = Callable[[Claim], Any]
"""The user's: it is given a claim, and what it returns is the attempt's result."""

RETRY_S: Final = 0.1

Answer = TypeVar("Answer")

OUTCOMES: Final = {
    Ending.COMPLETED: Outcome.COMPLETED,
    Ending.FAILED: Outcome.FAILED,
    Ending.WAITING: Outcome.WAITING,
}


def work(journal: Journal, function: Function, claim: Claim) -> Word:
    """Run the function and end the lease with its result or its error.

    A function that ended the lease itself is left alone. What the server cannot take just now is
    no fault of the function's, so it fails no attempt: the worker gives the lease up instead.
    """
    try:
        return _finish(journal, function, claim)
    except LeaseLost as error:
        return _word(Outcome.LOST, error)
    except Retry as error:
        traceback.print_exc()
        return _word(Outcome.INTERRUPTED, error)
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is recorded
        traceback.print_exc()
        return _fail(claim.lease, error)


def ending_of(journal: Journal, lease: Lease) -> Outcome | None:
    """How the lease's own worker ended it, as the log tells; None where it did not.

    A heartbeat cannot tell this from a loss: both find no held lease with that fence.
    """
    recovery = journal.recovery(lease.attempt_id)
    ended, lost = recovery.ended, recovery.lost
    if (
        isinstance(ended, LeaseEnded)
        and ended.fence == lease.fence
        and ended.recorded_by.role == "worker"
    ):
        return OUTCOMES.get(ended.ending)
    if lost is not None and lost.lease.fence == lease.fence and lost.loss is LossReason.HANDED_BACK:
        return Outcome.HANDED_BACK
    return None


def _finish(journal: Journal, function: Function, claim: Claim) -> Word:
    result = function(claim)
    lease = claim.lease
    outcome = _insisting(lease, lambda: ending_of(journal, lease))
    if outcome is None:
        _insisting(lease, lambda: lease.complete(result))
    return Word(outcome=outcome or Outcome.COMPLETED)


def _fail(lease: Lease, error: BaseException) -> Word:
    try:
        _insisting(lease, lambda: lease.fail(error))
    except LeaseLost as lost:
        return _word(Outcome.LOST, lost)
    except Retry as problem:
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
    return Word(outcome=outcome, error_class=class_of(error), message=message_of(error))
