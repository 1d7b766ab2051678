"""Values of every accepted type, nested, and how two are compared: to `==` 1 is True."""

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
DECIMALS = ("0", "-0", "1.0", "1.00", "1E+3", "-0E-10", "NaN", "-NaN7", "Infinity", "-Infinity")

Shape = tuple[Any, ...]


def shape(value: Any, *, is_canonical: bool = False) -> Shape:
    """All that makes a value what it is: its exact type, its content, and its order. A canonical
    shape leaves out the order of a dict's keys."""

    def inner(part: object) -> Shape:
        return shape(part, is_canonical=is_canonical)

    kind = type(value)
    content: object = value
    if kind is float:
        content = struct.pack("<d", value)
    elif kind is Decimal:
        content = value.as_tuple()
    elif kind in (list, tuple):
        content = tuple(inner(part) for part in value)
    elif kind in (set, frozenset):
        content = tuple(sorted((inner(part) for part in value), key=repr))
    elif kind is dict:
        items = [(inner(key), inner(part)) for key, part in value.items()]
        content = tuple(sorted(items, key=repr) if is_canonical else items)
    elif kind in (datetime, time):
        content = (repr(value.replace(tzinfo=None)), value.fold, _zone(value.tzinfo))
    return (kind.__name__, content)


def _zone(zone: Any) -> Shape | None:
    if zone is None:
        return None
    named = repr(zone) if type(zone) is timezone else zone.key
    return (type(zone).__name__, named)


def _fixed_zones() -> st.SearchStrategy[timezone]:
    offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    named = st.builds(timezone, offsets, names)
    return named | st.builds(timezone, offsets) | st.just(UTC)


def _zones() -> st.SearchStrategy[Any]:
    return st.none() | _fixed_zones() | st.sampled_from(ZONES).map(ZoneInfo)


def _datetimes() -> st.SearchStrategy[datetime]:
    drawn = st.datetimes(timezones=_zones(), allow_imaginary=True)
    return st.builds(lambda at, fold: at.replace(fold=fold), drawn, st.integers(0, 1))


def _times() -> st.SearchStrategy[time]:
    return st.builds(
        lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold),
        st.times(),
        _zones(),
        st.integers(0, 1),
    )


def _floats() -> st.SearchStrategy[float]:
    """Of any bits: each NaN is one of its own."""
    bits = st.integers(0, 2**64 - 1).map(lambda it: struct.unpack("<d", struct.pack("<Q", it))[0])
    return st.floats() | bits


def leaves() -> st.SearchStrategy[Any]:
    """Values that hold no others."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        _floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        st.binary(max_size=10),
        st.decimals() | st.sampled_from(DECIMALS).map(Decimal),
        st.uuids(),
        st.dates(),
        st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max]),
        _times(),
        _datetimes(),
    )


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except (TypeError, OverflowError):  # a signaling NaN; a time zone at the end of times
        return False
    return True


def elements() -> st.SearchStrategy[Any]:
    """Values that a set may hold."""
    return st.recursive(
        leaves().filter(_is_hashable),
        lambda inner: st.frozensets(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
        max_leaves=4,
    )


def accepted() -> st.SearchStrategy[Any]:
    """Values of all accepted types, nested."""
    keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    return st.recursive(
        leaves() | st.sets(elements(), max_size=3) | st.frozensets(elements(), max_size=3),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
        ),
        max_leaves=12,
    )


def sample() -> dict[str, Any]:
    """One value of each accepted type, and some that are easily taken for one another."""
    at = datetime(2031, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    return {
        "none": None,
        "numbers": [True, 1, 1.0, Decimal(1), Decimal("1.00"), -0.0, 2**64 - 1, -(2**63)],
        "text and bytes": ["a", b"a", "", b"", "\0", "\U0001f4a9"],
        "sequences": [(), [], (1, (2,)), [1, [2]]],
        "sets": [set(), frozenset(), {"b", "a"}, frozenset({(1, "x")}), {frozenset({1.0})}],
        "keys": {"b": 1, "a": {"z": 1, "y": 2}, "": 3, "not an identifier": 4},
        "decimals": [Decimal(it) for it in (*DECIMALS, "sNaN5")],
        "days": [date(2031, 1, 1), date.min, date.max],
        "times": [time(1, 2, 3, 4), time(2, 30, fold=1), time(1, tzinfo=at.tzinfo)],
        "lengths": [timedelta.min, timedelta.max, timedelta(-1, 2, 3)],
        "moments": [
            datetime.min,  # noqa: DTZ901 - without a zone, on purpose
            at,
            at.replace(fold=1),
            *(at.replace(tzinfo=it) for it in (UTC, timezone(timedelta(0), "Zulu"))),
            at.replace(tzinfo=timezone(timedelta(hours=1, microseconds=1))),
            at.replace(tzinfo=ZoneInfo("UTC")),
        ],
    }
