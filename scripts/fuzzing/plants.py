"""Bugs on purpose, each a change to the product's text: what a fuzzer must find to be trusted."""

from typing import Final

from scripts.planting import Edit

PLANTS: Final[dict[str, tuple[Edit, ...]]] = {
    "deep-state": (
        Edit(
            "recovery_journal/log/mapper.py",
            "UnicodeDecodeError, RecursionError)",
            "UnicodeDecodeError)",
        ),
    ),
    "time-without-offset": (
        Edit("domain/bounds.py", "Annotated[datetime, Meta(tz=True)]", "datetime"),
    ),
    "key-error-of-the-decoder": (
        Edit(
            "recovery_journal/log/mapper.py",
            'reason = f"a state that says {says}"',
            "reason = {}[says]",
        ),
    ),
}
