"""Plain values: those that MessagePack keeps as they are."""

from types import NoneType
from typing import Any, Final, TypeAlias

from recovery_journal.values.refusals import CannotWrite

Value: TypeAlias = Any
"""Whatever a user stores: of a supported type, or of one with a codec."""

PLAIN: Final = frozenset({NoneType, bool, int, float, str, bytes})
"""Types that hold nothing else, and that MessagePack tells apart."""

TEXT: Final = frozenset({str})

DEEPEST: Final = 100
"""Containers within one another. Far fewer than a decoder has room for on Python's usual stack, so
that what one process wrote another can read."""

LARGEST_PAYLOAD: Final = 64 * 1024 * 1024  # bytes; far below what one PostgreSQL value may hold


def is_plain(value: Value) -> bool:
    """Whether a value is of plain types, lists, and dicts with text keys all through, exactly, and
    not too deep. Types are compared level by level, at the speed of C."""
    if type(value) in PLAIN:
        return True
    level, count = [value], 0
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is dict:
                if not TEXT.issuperset(map(type, part)):
                    return False
                part = part.values()  # noqa: PLW2901 - from here on it is like a list
            elif kind is not list:
                return False
            count = require_fewer(count + len(part))
            if not PLAIN.issuperset(map(type, part)):
                deeper += [it for it in part if type(it) not in PLAIN]
        if not deeper:
            return True
        level = deeper
    return False


def require_fewer(count: int) -> int:
    """Refuse more parts than a payload has bytes, before they are all looked at."""
    if count > LARGEST_PAYLOAD:
        raise CannotWrite(f"more than {LARGEST_PAYLOAD:,} parts")
    return count
