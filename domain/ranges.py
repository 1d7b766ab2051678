"""Numbers that an operator may set, checked when they are set: NaN is within no range."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from domain.errors import InvalidInput

YEAR_S: Final = 365 * 24 * 3600.0

Ranges = Mapping[str, tuple[float, float]]
"""The lowest and the highest value of each setting; where both are integers, so must it be."""


def require_within(settings: Struct, ranges: Ranges) -> None:
    """Refuse settings that lie outside of their ranges. Raises `InvalidInput`."""
    for name, (lowest, highest) in ranges.items():
        value = getattr(settings, name)
        is_whole = isinstance(lowest, int) and isinstance(highest, int)
        kind = int if is_whole else (int, float)
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not lowest <= value <= highest:
            article = "a whole number" if is_whole else "a number"
            raise InvalidInput(
                name,
                found=repr(value),
                needed=f"{article} from {lowest:,} to {highest:,}",
                do="choose one within",
            )
