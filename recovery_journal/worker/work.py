"""The work of a worker's child: run the user's function under the lease, and report how it
ended."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from recovery_journal.claiming.loading import Claim
from recovery_journal.domain.errors import LeaseLost, Retry, StreamUnusable
from recovery_journal.domain.events import Ending
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.wording import class_of, message_of
from recovery_journal.process.callables import finished
from recovery_journal.process.forks import ending_own_forks
from recovery_journal.store.writes import retry
from recovery_journal.worker.child import ChildResult, is_draining
from recovery_journal.worker.outcome import Outcome

if TYPE_CHECKING:
    from recovery_journal.store.lease import Lease

Function = Callable[[Claim], Any]
"""The user's function: it is called with a claim, and its return value is the attempt's result. An
awaitable is awaited, in an event loop of its own."""

RETRY_S: Final = 0.1

NO_FAULT: Final = (Retry, StreamUnusable)
"""Refusals of a write that are no fault of the function."""

Answer = TypeVar("Answer")

OUTCOMES: Final[dict[Ending | LossReason | None, Outcome]] = {
    Ending.COMPLETED: Outcome.COMPLETED,
    Ending.FAILED: Outcome.FAILED,
    Ending.WAITING: Outcome.WAITING,
    LossReason.HANDED_BACK: Outcome.HANDED_BACK,
}


def work(function: Function, claim: Claim) -> ChildResult:
    """Run the function and end the lease with its result or its error.

    A lease that the function ended itself is left alone. A temporary failure of the server is no
    fault of the function, and an error while the worker drains need not be one, so neither fails an
    attempt: the worker gives the lease up instead.
    """
    claim.lease.keep_trying()
    try:
        return _finish(function, claim)
    except BaseException as raised:  # noqa: BLE001 - whatever the user's code raises is recorded
        error = _cause(raised)
        if isinstance(error, LeaseLost):
            return _result(Outcome.LOST, error)
        traceback.print_exc()
        # A drain may have reached a tool of the function too.
        if isinstance(error, NO_FAULT) or is_draining():
            return _result(Outcome.INTERRUPTED, error)
        return _fail(claim.lease, raised)


def ending_of(lease: Lease) -> Outcome | None:
    """How the lease's own worker ended it; None where it did not.

    A heartbeat cannot distinguish this from a loss: both find no held lease with that fence.
    """
    return OUTCOMES.get(lease.own_ending())


def _finish(function: Function, claim: Claim) -> ChildResult:
    result = _call(function, claim)
    lease = claim.lease
    outcome = retry(lambda: ending_of(lease), patience_s=lease.ttl_s)
    if outcome is None:
        retry(lambda: lease.complete(result), patience_s=lease.ttl_s)
    return ChildResult(outcome=outcome or Outcome.COMPLETED)


def _call(function: Function, claim: Claim) -> Any:  # noqa: ANN401 - whatever the user returns
    with ending_own_forks():
        answer = function(claim)
        answer = asyncio.run(_await(answer)) if isawaitable(answer) else answer
    return finished("the function", answer)


async def _await(answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - likewise
    return await answer


def _cause(raised: BaseException) -> BaseException:
    """The cause that stands for a group of exceptions, as a task group raises: a lost lease if one
    of them is that, a refusal to be retried if all of them are."""
    if not isinstance(raised, BaseExceptionGroup):
        return raised
    lost, _ = raised.split(LeaseLost)
    refused, others = raised.split(NO_FAULT)
    part: BaseException = lost or (raised if others else refused) or raised
    while part is not raised and isinstance(part, BaseExceptionGroup):
        part = part.exceptions[0]
    return part


def _fail(lease: Lease, error: BaseException) -> ChildResult:
    try:
        retry(lambda: lease.fail(error), patience_s=lease.ttl_s)
    except LeaseLost as lost:
        return _result(Outcome.LOST, lost)
    except (Retry, StreamUnusable) as problem:
        return _result(Outcome.INTERRUPTED, problem)
    return _result(Outcome.FAILED, error)


def _result(outcome: Outcome, error: BaseException) -> ChildResult:
    return ChildResult(outcome=outcome, error_class=class_of(error), message=message_of(error))
