"""Whether a history of calls could have happened one after the other: Wing and Gong's search, with
Lowe's memory of what was tried.

A call takes effect at one moment between its invocation and its return. One that never returned
may take effect at any moment after its invocation, or never.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

STEP_LIMIT: Final = 500_000


class Call(Protocol):
    """When a call began and ended, by one clock; None where it never returned."""

    @property
    def invoked_ns(self) -> int:
        """The last moment at which it certainly had no effect yet."""

    @property
    def returned_ns(self) -> int | None:
        """The first moment at which its effect was certain."""


CallT = TypeVar("CallT", bound=Call)
StateT = TypeVar("StateT", bound=Hashable)

Apply = Callable[[StateT, CallT], StateT | None]
"""The sequential object: its next state, or None where the call cannot happen in this one."""


class Verdict(Struct, Generic[StateT, CallT], frozen=True, kw_only=True):
    """Whether an order was found. If not: the longest beginning of one, its state, and
    the calls of which one would have to come next. Undecided where the search was given up."""

    is_linearizable: bool
    is_decided: bool = True
    order: tuple[CallT, ...] = ()
    state: StateT | None = None
    stuck: tuple[CallT, ...] = ()


class _Place(NamedTuple, Generic[StateT]):
    """A place in the search: which calls have happened, as bits, and the state after them."""

    done: int
    state: StateT


def linearized(
    calls: Sequence[CallT],
    initial: StateT,
    apply: Apply[StateT, CallT],
    *,
    step_limit: int = STEP_LIMIT,
) -> Verdict[StateT, CallT]:
    """Search for an order of the calls that the object allows and that no clock contradicts; give
    up after so many places."""
    calls = sorted(calls, key=lambda it: it.invoked_ns)
    needed = sum(1 << number for number, it in enumerate(calls) if it.returned_ns is not None)
    best = _Place(0, initial)
    came_from: dict[_Place[StateT], tuple[_Place[StateT], CallT] | None] = {}
    open_places: list[tuple[_Place[StateT], tuple[_Place[StateT], CallT] | None]] = [(best, None)]
    while open_places:
        place, origin = open_places.pop()
        if place in came_from:
            continue
        came_from[place] = origin
        if (place.done & needed).bit_count() > (best.done & needed).bit_count():
            best = place
        if place.done & needed == needed:
            return Verdict(is_linearizable=True, order=_order(came_from, place), state=place.state)
        if len(came_from) > step_limit:
            return Verdict(is_linearizable=False, is_decided=False, order=_order(came_from, best))
        open_places += [
            (_Place(place.done | 1 << number, state), (place, calls[number]))
            for number in _candidates(place.done, calls)
            if (state := apply(place.state, calls[number])) is not None
        ]
    stuck = tuple(calls[number] for number in _candidates(best.done, calls) if needed >> number & 1)
    return Verdict(
        is_linearizable=False, order=_order(came_from, best), state=best.state, stuck=stuck
    )


def _candidates(done: int, calls: Sequence[Call]) -> list[int]:
    """The calls that no other, still to come, precedes; the most likely last, to be tried first."""
    first = (~done & (done + 1)).bit_length() - 1
    horizon = math.inf
    found = []
    for number in range(first, len(calls)):
        if calls[number].invoked_ns > horizon:
            break
        if not done >> number & 1:
            found.append(number)
            horizon = min(horizon, _end(calls[number]))
    found = [number for number in found if calls[number].invoked_ns <= horizon]
    return sorted(found, key=lambda number: (_end(calls[number]) < math.inf, -number))


def _order(
    came_from: dict[_Place[StateT], tuple[_Place[StateT], CallT] | None], place: _Place[StateT]
) -> tuple[CallT, ...]:
    found = []
    while (origin := came_from[place]) is not None:
        place, call = origin
        found.append(call)
    return tuple(reversed(found))


def _end(call: Call) -> float:
    return math.inf if call.returned_ns is None else call.returned_ns
