"""The search for an order, against trying them all."""

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from scripts.storming.linearizability import linearized


class Access(Struct, frozen=True, kw_only=True):
    """A read or a write of a register."""

    writes: bool
    value: int
    invoked_ns: int
    returned_ns: int | None


def access(before: int, call: Access) -> int | None:
    if call.writes:
        return call.value
    return before if call.value == before else None


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    invoked = draw(st.integers(0, 8))
    return Access(
        writes=draw(st.booleans()),
        value=draw(st.integers(0, 2)),
        invoked_ns=invoked,
        returned_ns=draw(st.none() | st.integers(invoked, invoked + 6)),
    )


def has_an_order(calls: Sequence[Access]) -> bool:
    """Every subset that holds all calls that returned, in every order."""
    pending = [it for it in calls if it.returned_ns is None]
    returned = [it for it in calls if it.returned_ns is not None]
    return any(
        is_allowed(order)
        for count in range(len(pending) + 1)
        for chosen in itertools.combinations(pending, count)
        for order in itertools.permutations([*returned, *chosen])
    )


def is_allowed(order: Sequence[Access]) -> bool:
    state = 0
    for number, call in enumerate(order):
        if any(
            later.returned_ns is not None and later.returned_ns < call.invoked_ns
            for later in order[number + 1 :]
        ):
            return False
        after = access(state, call)
        if after is None:
            return False
        state = after
    return True


@settings(max_examples=400, deadline=None)
@given(st.lists(accesses(), max_size=6))
def test_an_order_is_found_exactly_where_there_is_one(calls: list[Access]) -> None:
    verdict = linearized(calls, 0, access)

    assert verdict.is_decided
    assert verdict.is_linearizable == has_an_order(calls)
    if verdict.is_linearizable:
        assert is_allowed(verdict.order)
        assert {id(it) for it in calls if it.returned_ns is not None} <= {
            id(it) for it in verdict.order
        }


def test_a_long_history_of_one_after_the_other_is_judged_at_once() -> None:
    writes = [
        Access(writes=True, value=number, invoked_ns=2 * number, returned_ns=2 * number + 1)
        for number in range(3_000)
    ]

    verdict = linearized(writes, 0, access)

    assert verdict.is_linearizable
    assert verdict.order == tuple(writes)


def test_a_search_without_an_end_is_given_up_and_says_so() -> None:
    calls = [
        *(Access(writes=True, value=n, invoked_ns=0, returned_ns=None) for n in range(18)),
        *(Access(writes=True, value=n, invoked_ns=0, returned_ns=9) for n in range(18)),
        Access(writes=False, value=99, invoked_ns=0, returned_ns=9),
    ]

    verdict = linearized(calls, 0, access, step_limit=1_000)

    assert not verdict.is_linearizable
    assert not verdict.is_decided
