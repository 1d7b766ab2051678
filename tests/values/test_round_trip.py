"""Every accepted value comes back of the same exact type, order and content."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal, localcontext
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from recovery_journal.values.payload import BUILT_IN
from recovery_journal.values.plain import DEEPEST
from tests.values.accepted import accepted, elements, sample, shape

NESTINGS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda inner: [inner],
    "tuples": lambda inner: (inner,),
    "frozensets": lambda inner: frozenset({inner}),
    "dicts": lambda inner: {"a": inner},
}
BERLIN = ZoneInfo("Europe/Berlin")


def again(value: Any) -> Any:
    encoded = BUILT_IN.encode(value, name="it").encoded
    return BUILT_IN.decode_digested(encoded, what="it")


def canonical(value: Any) -> str:
    return BUILT_IN.canonical_digest(value, name="it")


def nested(nest: Callable[[Any], Any], depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = nest(value)
    return value


@given(accepted())
def test_any_accepted_value_comes_back_as_it_went_in(value: Any) -> None:
    assert shape(again(value)) == shape(value)


@given(elements())
def test_any_element_of_a_set_comes_back_as_it_went_in(value: Any) -> None:
    assert shape(again({value})) == shape({value})


@pytest.mark.parametrize("name", sample())
def test_what_is_easily_taken_for_something_else_comes_back(name: str) -> None:
    value = sample()[name]

    assert shape(again(value)) == shape(value)


@given(accepted(), accepted())
def test_a_canonical_digest_distinguishes_values_by_type_and_content_alone(
    left: Any, right: Any
) -> None:
    is_same = shape(left, is_canonical=True) == shape(right, is_canonical=True)

    assert (canonical(left) == canonical(right)) is is_same
    assert canonical(again(left)) == canonical(left)


def test_values_that_are_equal_to_python_have_different_canonical_digests() -> None:
    at = datetime(2031, 10, 26, 2, 30, tzinfo=BERLIN)
    alike: list[Any] = [
        *(1, 1.0, True, Decimal(1), Decimal("1.0"), "1", b"1"),
        *([1], (1,), {1}, frozenset({1}), {1.0}, {True}, [1.0]),
        *(0.0, -0.0, Decimal(0), Decimal("-0"), False, None, "", b"", [], (), {}, set()),
        *(at, at.replace(fold=1), at.replace(tzinfo=timezone(timedelta(hours=2)))),
        *(at.replace(tzinfo=it) for it in (UTC, ZoneInfo("UTC"), timezone(timedelta(0), "UTC"))),
        *(at.date(), at.time(), at.timetz(), timedelta(0)),
    ]

    assert len({canonical(value) for value in alike}) == len(alike)
    assert len({canonical([value]) for value in alike}) == len(alike)


def test_the_order_of_keys_and_elements_does_not_count_in_a_canonical_digest() -> None:
    left = {"b": {"y": 1, "x": {"p", "q", "r"}}, "a": [{"n": 1, "m": ({"k": 1, "j": 2},)}]}
    right = {"a": [{"m": ({"j": 2, "k": 1},), "n": 1}], "b": {"x": {"r", "q", "p"}, "y": 1}}

    assert canonical(left) == canonical(right)
    assert list(again(left)) == ["b", "a"]
    assert list(again(right)) == ["a", "b"]


def test_a_set_is_stored_alike_whatever_order_it_was_made_in() -> None:
    left: set[int] = set()
    right: set[int] = set()
    for number in (8, 0, 16):  # of one place in a small table, so that the order of making shows
        left.add(number)
        right.add(16 - number)

    assert list(left) != list(right)
    assert BUILT_IN.encode(left, name="it") == BUILT_IN.encode(right, name="it")


def test_arithmetic_over_a_change_of_the_clocks_is_the_same_afterwards() -> None:
    begun = datetime(2031, 10, 25, 12, tzinfo=BERLIN)
    twice = datetime(2031, 10, 26, 2, 30, tzinfo=BERLIN)

    later = again(begun) + timedelta(days=1)
    first, second = again([twice, twice.replace(fold=1)])

    assert later.isoformat() == "2031-10-26T12:00:00+01:00"
    assert later.astimezone(UTC) - begun.astimezone(UTC) == timedelta(hours=25)
    assert second.timestamp() - first.timestamp() == 3600
    assert second - first == timedelta(0)  # both of one zone: the wall clock's difference


def test_zones_of_one_value_are_one_object_again() -> None:
    first, second = again(
        [datetime(2031, 1, 1, tzinfo=BERLIN), datetime(2031, 7, 1, tzinfo=BERLIN)]
    )

    assert first.tzinfo is second.tzinfo is BERLIN
    assert again(datetime(2031, 1, 1, tzinfo=UTC)).tzinfo is UTC


def test_the_programs_decimal_context_changes_nothing() -> None:
    value = Decimal("1234567890.12300E+30")

    with localcontext(Context(prec=2, capitals=0, traps=[])):
        encoded = BUILT_IN.encode(value, name="it")
        found = BUILT_IN.decode_digested(encoded.encoded, what="it")

    assert encoded == BUILT_IN.encode(value, name="it")
    assert found.as_tuple() == value.as_tuple()


def test_a_uuid_comes_back_without_a_word_on_how_it_was_made() -> None:
    found = again(UUID(int=5, is_safe=SafeUUID.safe))

    assert (found, found.is_safe) == (UUID(int=5), SafeUUID.unknown)


def test_what_is_given_and_what_comes_back_share_nothing() -> None:
    given = {"list": [1], "dict": {"a": [2]}, "set": {3}}

    found = again(given)
    found["list"].append(4)
    found["dict"]["a"].clear()
    found["set"].add(5)

    assert given == {"list": [1], "dict": {"a": [2]}, "set": {3}}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("left", [900, 60, 40])
def test_what_is_nested_as_deep_as_may_be_is_read_with_little_of_the_stack_left(
    nesting: str, left: int
) -> None:
    value = nested(NESTINGS[nesting], DEEPEST)

    def below(depth: int) -> Any:
        return below(depth - 1) if depth else again(value)

    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends it
        depth += 1
    found = below(max(sys.getrecursionlimit() - depth - left, 0))

    assert canonical(found) == canonical(value)
