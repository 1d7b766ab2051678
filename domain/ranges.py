"""The ranges of numbers that an operator may set, validated when they are set: NaN is within no
range."""

from typing import Final

from msgspec import Struct
from msgspec.structs import fields

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.wording import shown

YEAR_S: Final = 365 * 24 * 3600.0


def require_settings(settings: Struct) -> None:
    """Refuse settings outside the ranges that their fields declare by `Meta(ge=…, le=…)`, or of
    another class than their fields'. Where both limits are integers, so must the value be. Raises
    `InvalidInput`."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        limits = getattr(field.type, "__metadata__", ())
        for limit in limits:
            require_number(field.name, value, limit.ge, limit.le)
        if not limits:
            require_kind(field.name, value, field.type, field.type.__name__)


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
