"""The ranges of numbers that an operator may set, validated when they are set: NaN is within no
range."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.wording import shown

YEAR_S: Final = 365 * 24 * 3600.0

Ranges = Mapping[str, tuple[float, float]]
"""The lowest and the highest value of each setting; where both are integers, the value must be
one."""


def require_within(settings: Struct, ranges: Ranges) -> None:
    """Refuse settings that lie outside of their ranges. Raises `InvalidInput`."""
    for name, (lowest, highest) in ranges.items():
        require_number(name, getattr(settings, name), lowest, highest)


def require_number(name: str, value: object, lowest: float, highest: float) -> None:
    """Refuse a value that is not a number within this range. Raises `InvalidInput`."""
    is_whole = isinstance(lowest, int) and isinstance(highest, int)
    kind = int if is_whole else (int, float)
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not lowest <= value <= highest:  # type: ignore[operator]  # a number by now
        article = "a whole number" if is_whole else "a number"
        raise InvalidInput(
            name,
            found=shown(value),
            needed=f"{article} from {lowest:,} to {highest:,}",
            do="choose one within",
        )


def require_kind(name: str, value: object, kind: type, needed: str) -> None:
    """Refuse a value that is not of this class. Raises `InvalidInput`."""
    if not isinstance(value, kind):
        raise InvalidInput(name, found=shown(value), needed=needed, do="pass that")
