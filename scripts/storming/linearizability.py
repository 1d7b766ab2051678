"""Whether a history of calls could have happened one after the other: Wing and Gong's search, with
Lowe's memory of what was tried.

A call takes effect at one moment between its invocation and its return. One that never returned
may take effect at any moment after its invocation, or never.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
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
    """A place in the search: which calls have happened, as bits, and where that leads."""

    done: int
    pending: int
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
    returned = sorted((it for it in calls if it.returned_ns is not None), key=_invoked)
    pending = sorted((it for it in calls if it.returned_ns is None), key=_invoked)
    everything = (1 << len(returned)) - 1
    came_from: dict[_Place[StateT], tuple[_Place[StateT], CallT] | None] = {}
    best = _Place(0, 0, initial)
    open_places: list[tuple[_Place[StateT], tuple[_Place[StateT], CallT] | None]] = [(best, None)]
    while open_places:
        place, origin = open_places.pop()
        if place in came_from:
            continue
        came_from[place] = origin
        if place.done.bit_count() > best.done.bit_count():
            best = place
        if place.done == everything:
            return Verdict(is_linearizable=True, order=_order(came_from, place), state=place.state)
        if len(came_from) > step_limit:
            return Verdict(is_linearizable=False, is_decided=False, order=_order(came_from, best))
        nexts = [
            (_Place(place.done | done, place.pending | also, state), (place, call))
            for done, also, call in _candidates(place, returned, pending)
            if (state := apply(place.state, call)) is not None
        ]
        open_places += nexts
    stuck = tuple(call for done, _, call in _candidates(best, returned, pending) if done)
    return Verdict(
        is_linearizable=False, order=_order(came_from, best), state=best.state, stuck=stuck
    )


def _candidates(
    place: _Place[StateT], returned: Sequence[CallT], pending: Sequence[CallT]
) -> Iterator[tuple[int, int, CallT]]:
    """The calls that no other, still to come, precedes; the most likely last, to be tried first."""
    first = (~place.done & (place.done + 1)).bit_length() - 1
    horizon = _return_of(returned[first])
    found = []
    for number in range(first, len(returned)):
        if _invoked(returned[number]) > horizon:
            break
        if not place.done >> number & 1:
            found.append(number)
            horizon = min(horizon, _return_of(returned[number]))
    for number, call in enumerate(pending):
        if _invoked(call) > horizon:
            break
        if not place.pending >> number & 1:
            yield 0, 1 << number, call
    for number in reversed(found):
        if _invoked(returned[number]) <= horizon:
            yield 1 << number, 0, returned[number]


def _order(
    came_from: dict[_Place[StateT], tuple[_Place[StateT], CallT] | None], place: _Place[StateT]
) -> tuple[CallT, ...]:
    found = []
    origin = came_from[place]
    while origin is not None:
        place, call = origin
        found.append(call)
        origin = came_from[place]
    return tuple(reversed(found))


def _invoked(call: Call) -> int:
    return call.invoked_ns


def _return_of(call: Call) -> int:
    assert call.returned_ns is not None
    return call.returned_ns
