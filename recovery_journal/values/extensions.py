"""The table of MessagePack extension types: code, Python type, encoder and decoder of each.

Codes are stored, so a code is never reused for another type.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from recovery_journal.values.plain import PLAIN
from recovery_journal.values.zones import zone_form, zone_of

CODEC_CODE: Final = 0
"""A value with a user codec: the codec's name, and the encoded value that the codec returned. A
reader without the codec does not decode the latter."""


class Extension(Struct, frozen=True):
    """Store values of exactly this type as `form(value)`, a plain value; `value_of` inverts it. The
    form of a container is the list of its elements."""

    code: int
    type: type[Any]
    form: Callable[[Any], Any]
    value_of: Callable[[Any], Any]
    is_container: bool = False
    is_ordered: bool = True


_WORDS: Final = Context(capitals=1)  # the caller's context may write E or e


def _decimal_of(text: str) -> Decimal:
    value = Decimal(text)
    if _WORDS.to_sci_string(value) != text:  # malformed text is NaN where the caller traps nothing
        raise ValueError(f"no decimal number: {text[:50]!r}")
    return value


def _time_form(value: time | datetime) -> list[Any]:
    parts = [value.hour, value.minute, value.second, value.microsecond]
    return [*parts, value.fold, zone_form(value.tzinfo)]


def _time_of(form: list[Any]) -> time:
    hour, minute, second, microsecond, fold, zone = form
    return time(hour, minute, second, microsecond, tzinfo=zone_of(zone), fold=fold)


def _datetime_of(form: list[Any]) -> datetime:
    year, month, day, *rest = form
    at = _time_of(rest)
    return datetime.combine(date(year, month, day), at)


def _date_form(value: date) -> list[Any]:
    return [value.year, value.month, value.day]


EXTENSIONS: Final = (
    Extension(1, tuple, list, tuple, is_container=True),
    Extension(2, set, list, set, is_container=True, is_ordered=False),
    Extension(3, frozenset, list, frozenset, is_container=True, is_ordered=False),
    Extension(4, Decimal, _WORDS.to_sci_string, _decimal_of),
    Extension(5, UUID, lambda value: value.bytes, lambda form: UUID(bytes=form)),
    Extension(6, date, _date_form, lambda form: date(*form)),
    Extension(7, time, _time_form, _time_of),
    Extension(
        8,
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda form: timedelta(*form),
    ),
    Extension(9, datetime, lambda it: _date_form(it) + _time_form(it), _datetime_of),
)

BY_TYPE: Final = {extension.type: extension for extension in EXTENSIONS}
BY_CODE: Final = {extension.code: extension for extension in EXTENSIONS}

SUPPORTED: Final = frozenset({*PLAIN, list, dict, *BY_TYPE})
