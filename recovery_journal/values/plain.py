"""Plain values: those that MessagePack represents without an extension type."""

from types import NoneType
from typing import Any, Final, TypeAlias

from recovery_journal.values.refusals import CannotWrite

Value: TypeAlias = Any
"""Any value that a user stores: of a supported type, or of one with a codec."""

PLAIN: Final = frozenset({NoneType, bool, int, float, str, bytes})
"""Scalar types, which MessagePack keeps apart."""

TEXT: Final = frozenset({str})

DEEPEST: Final = 100
"""Levels of nested containers: far fewer than Python's default recursion limit lets a decoder
descend, so that every accepted value can be decoded in any process."""

LARGEST_PAYLOAD: Final = 64 * 1024 * 1024  # bytes; far below what one PostgreSQL value may hold


def is_plain(value: Value) -> bool:
    """Whether a value consists of exactly the plain types, lists and dicts with text keys, and is
    not nested too deeply. Compares types level by level, without a Python loop over scalars."""
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
                part = part.values()  # noqa: PLW2901 - checked like a list from here on
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
    """Refuse more parts than a payload may have bytes, before visiting them all."""
    if count > LARGEST_PAYLOAD:
        raise CannotWrite(f"more than {LARGEST_PAYLOAD:,} parts")
    return count
