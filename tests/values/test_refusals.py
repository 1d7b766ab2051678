"""Values that would not come back are refused, with the path to it and what to do."""

import enum
import re
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo

import msgspec
import pytest

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.values.extensions import SUPPORTED
from recovery_journal.values.payload import BUILT_IN
from recovery_journal.values.plain import DEEPEST


class Color(enum.Enum):
    """A choice."""

    RED = "red"


class Level(enum.IntEnum):
    """A choice that is a number too."""

    HIGH = 3


class Word(enum.StrEnum):
    """A choice that is text too."""

    YES = "yes"


class Text(str):  # noqa: SLOT000 - a subclass, on purpose
    """Text with a name of its own."""


class Number(int):
    """A number with a name of its own."""


class Moment(datetime):
    """A datetime of a library's."""


class Amount(Decimal):
    """A decimal with a name of its own."""


class Mine(UUID):
    """A UUID with a name of its own."""


class Shifted(timedelta):
    """An offset with a meaning of its own."""


class Shift(tzinfo):
    """A time zone of the program's own."""

    def utcoffset(self, _at: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _at: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, _at: datetime | None) -> str:
        return "shift"


@dataclass
class Line:
    """A dataclass."""

    price: int


class Row(msgspec.Struct):
    """A struct."""

    price: int


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - the untyped one, on purpose


def zone_of_a_file(key: str | None) -> ZoneInfo:
    for folder in TZPATH:
        path = f"{folder}/Europe/Berlin"
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - a path of the system's
                return ZoneInfo.from_file(BytesIO(file.read()), key)
        except FileNotFoundError:
            continue
    pytest.skip("no time zone data in a file here")


REFUSED: dict[str, Any] = {
    "Color": Color.RED,
    "Level, a subclass of int": Level.HIGH,
    "Word, a subclass of str": Word.YES,
    "Text, a subclass of str": Text("a"),
    "Number, a subclass of int": Number(1),
    "Moment, a subclass of datetime": Moment(2031, 1, 1),
    "Amount, a subclass of Decimal": Amount(1),
    "Mine, a subclass of UUID": Mine(int=1),
    "Pair, a subclass of tuple": Pair(1, 2),
    "OrderedDict, a subclass of dict": OrderedDict(a=1),
    "Counter, a subclass of dict": Counter("a"),
    "defaultdict, a subclass of dict": defaultdict(int),
    "UserDict": UserDict(),
    "deque": deque([1]),
    "Line": Line(1),
    "Row": Row(1),
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "Fraction": Fraction(1, 3),
    "complex": 1j,
    "range": range(3),
    "PurePosixPath": PurePosixPath("a"),
    "dict_keys": {}.keys(),
    "Raw": msgspec.Raw(b"\x01"),
    "Ext": msgspec.msgpack.Ext(1, b""),
    "type": int,
    "ellipsis": ...,
    "int of more than 64 bits": 2**64,
    "str with a lone surrogate": "a\ud800",
    "datetime in the time zone of a Shift": datetime(2031, 1, 1, tzinfo=Shift()),
    "datetime in a time zone made by ZoneInfo.no_cache": datetime(
        2031, 1, 1, tzinfo=ZoneInfo.no_cache("Europe/Berlin")
    ),
    "datetime in a time zone whose offset is a Shifted": datetime(
        2031, 1, 1, tzinfo=timezone(Shifted(hours=1))
    ),
    "datetime in a time zone whose name has a lone surrogate": datetime(
        2031, 1, 1, tzinfo=timezone(timedelta(0), "\ud800")
    ),
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "": lambda bad: bad,
    ".price": lambda bad: {"price": bad},
    ".lines[3].price": lambda bad: {"lines": [1, "b", {"price": 1}, {"price": bad}]},
    "['unit price'][1]": lambda bad: {"a": Decimal(1), "unit price": (1, bad, bad)},
    "[0][0]": lambda bad: ([bad, 1], Decimal(1)),
}


def refusal(value: Any, name: str = "output") -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        BUILT_IN.encode(value, name=name)
    with pytest.raises(InvalidInput) as compared:
        BUILT_IN.canonical_digest(value, name=name)
    assert str(compared.value) == str(refused.value)
    assert refused.value.name == name
    assert "; convert " in str(refused.value)
    return refused.value


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("found", REFUSED)
def test_what_would_come_back_as_something_else_is_refused_with_its_path(
    found: str, place: str
) -> None:
    error = refusal(PLACES[place](REFUSED[found]))

    assert f"found output{place}: {found}, which cannot be encoded" in str(error)
    # Only for a type that is not accepted: a codec for int or datetime is refused itself.
    is_helped = type(REFUSED[found]) not in SUPPORTED
    assert is_helped == ("open the journal with a codec for exactly its type" in str(error))


@pytest.mark.parametrize(
    "found", ["Level, a subclass of int", "Color", "Pair, a subclass of tuple"]
)
def test_an_element_of_a_set_is_refused_as_itself(found: str) -> None:
    bad = REFUSED[found]

    assert f"output.tags{{{bad!r}}}: {found}" in str(refusal({"tags": {bad}}))
    assert f"output[0]{{{bad!r}}}: {found}" in str(refusal((frozenset({bad}),)))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (1, "[1]: a key of type int"),
        (None, "[None]: a key of type NoneType"),
        (Text("t"), "['t']: a key of type Text"),
        (Word.YES, "[<Word.YES: 'yes'>]: a key of type W"),
        (b"a", "[b'a']: a key of type bytes"),
        (True, "[True]: a key of type bool"),
        ("\ud800", "['\\ud800']: str with a lone surrogate"),
    ],
)
def test_a_key_that_is_no_text_is_refused(key: Any, shown: str) -> None:
    assert f"output.counts{shown}" in str(refusal({"counts": {"a": 1, key: 2}}))
    assert f"output[0].counts{shown}" in str(refusal(({"counts": {"a": 1, key: 2}},)))


@pytest.mark.parametrize("key", [None, "Europe/Berlin"])
def test_a_zone_that_was_read_from_a_file_is_refused_whatever_key_it_says(key: str | None) -> None:
    zone = zone_of_a_file(key)

    for value in (datetime(2031, 1, 1, tzinfo=zone), time(1, tzinfo=zone)):
        found = f"output: {type(value).__name__} in a time zone read from a file"
        assert found in str(refusal(value))


def test_what_holds_itself_is_refused() -> None:
    in_list: list[Any] = []
    in_list.append(in_list)
    in_dict: dict[str, Any] = {}
    in_dict["it"] = ({"it": in_dict},)

    assert re.search(r"output\[0\]…?.*: nested deeper than 100 levels", str(refusal(in_list)))
    assert "nested deeper than 100 levels, or within itself" in str(refusal(in_dict))


@pytest.mark.parametrize("depth", [DEEPEST + 1, 2_000, 100_000])
@pytest.mark.parametrize("make", [lambda it: [it], lambda it: (it,), lambda it: {"a": it}])
def test_what_is_nested_too_deeply_is_refused(depth: int, make: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(depth):
        value = make(value)

    assert f"nested deeper than {DEEPEST} levels" in str(refusal(value))


@pytest.mark.parametrize("make", [list, tuple])
def test_a_small_value_that_would_be_written_without_end_is_refused(
    make: Callable[[Any], Any],
) -> None:
    value: Any = "x" * 1_000
    for _ in range(6):
        value = make([value] * 100)

    with pytest.raises(InvalidInput, match=r"more than 67,108,864 (parts|bytes)"):
        BUILT_IN.encode(value, name="output")


def test_a_value_of_a_type_that_raises_is_refused() -> None:
    class Hostile(type):
        def __hash__(cls) -> int:
            raise RuntimeError("no hash")

    class Value(metaclass=Hostile):
        pass

    with pytest.raises(InvalidInput, match="RuntimeError: no hash"):
        BUILT_IN.encode([Value()], name="output")


def test_dates_are_no_datetimes_and_times_have_their_zone() -> None:
    for good in (date(2031, 1, 1), time(1, tzinfo=UTC)):
        BUILT_IN.encode(good, name="output")
    with pytest.raises(InvalidInput, match=r"output: time in the time zone of a Shift"):
        BUILT_IN.encode(time(1, tzinfo=Shift()), name="output")
