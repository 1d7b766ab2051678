"""Anything that a program may hand in where something else is wanted."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn

from hypothesis import strategies as st


class Mute:
    """Says nothing of itself, and raises where it is asked."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no word")

    __str__ = __repr__


class MuteError(Exception):
    """An exception whose message cannot be had."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no word")


class Nowhere(tzinfo):
    """A time zone that knows no offset, and says so by raising."""

    def utcoffset(self, _at: datetime | None) -> NoReturn:
        raise RuntimeError("no offset")

    dst = tzname = utcoffset


def cyclic() -> list[Any]:
    """A list that holds itself."""
    itself: list[Any] = []
    itself.append(itself)
    return itself


def deep(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def some() -> Iterator[str]:
    """A generator."""
    yield "one"


NUMBERS = (
    *(0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30),
    *(10**5_000, 0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf")),
    *(Decimal("1e999999"), Fraction(1, 3), 1j, True, False),
)
TEXTS = (
    *("", " ", "a", "held", "\0", "a\0b", "\ud800", "a\udcff", "\U0001f4a9", "x" * 200, "x" * 201),
    *("x" * 2_001, "%s", "%(id)s", "{}", "'; DROP TABLE leases; --", "\\", "\u202e", "\n", "0"),
    *("retry", "ttl", "pg_", "dispatch_ready", "é"),
)
TIMES = (
    datetime(2031, 1, 1),  # noqa: DTZ001 - without a zone, on purpose
    datetime(2031, 1, 1, tzinfo=UTC),
    datetime.min,  # noqa: DTZ901 - likewise
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))),
    datetime(2031, 1, 1, tzinfo=Nowhere()),
    datetime(2031, 1, 1).date(),  # noqa: DTZ001 - likewise
    *(timedelta(0), timedelta.min, timedelta.max, timedelta(milliseconds=100), timedelta(days=1)),
)
OTHERS: tuple[Any, ...] = (
    *(None, b"", b"a\0", bytearray(b"a"), memoryview(b"a"), object, object(), Mute(), MuteError()),
    *(repr, print, NotImplemented, ..., range(3), slice(1), Path("a\0b"), Path("/proc/1/nowhere")),
    *([], (), {}, set(), frozenset({1}), ["a"], ("a", 1), {"a": 1}, {1: "a"}, {None: object()}),
    *([None], ["\0"], ["a"] * 10_001, cyclic(), deep(2_000), Exception("\0"), KeyboardInterrupt),
)

SAMPLES: tuple[Any, ...] = (*NUMBERS, *TEXTS, *TIMES, *OTHERS)


def values() -> st.SearchStrategy[Any]:
    """Values of every type. Iterators and endless values are made again each time."""
    return st.one_of(
        # By their numbers, for some of them cannot be hashed or shown.
        st.integers(0, len(SAMPLES) - 1).map(SAMPLES.__getitem__),
        st.sampled_from((some, lambda: repeat("a"), cyclic)).map(lambda make: make()),
        st.integers(),
        st.text(max_size=20),
        st.binary(max_size=20),
        st.floats(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(inner_keys(), inner),
            max_leaves=5,
        ),
    )


def inner_keys() -> st.SearchStrategy[Any]:
    """Keys of every hashable kind."""
    return st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
