"""Foreign values and texts in our messages: short, and safe to store and show."""

from typing import Final

LONGEST_SHOWN: Final = 200  # characters
LONGEST_MESSAGE: Final = 2_000  # characters
LONGEST_CLASS: Final = 100  # characters


def shown(value: object) -> str:
    """Show any value in an error, whatever its own `repr` does."""
    try:
        words = repr(value)
    except Exception:  # noqa: BLE001 - the caller's own object may raise anything here
        words = f"a {type(value).__name__} that cannot be shown"
    return words if len(words) <= LONGEST_SHOWN else f"{words[:LONGEST_SHOWN]}…"


def message_of(error: BaseException) -> str:
    """An exception's message, cut and cleaned so that it can be stored."""
    try:
        words = str(error)
    except Exception as raised:  # noqa: BLE001 - the user's own exception may raise anything here
        words = f"a message that cannot be had: {type(raised).__name__}"
    return cleaned(words)


def class_of(error: BaseException) -> str:
    """The name of an exception's class, short. A class made at run time may have any text as its
    name, which is no class name; then its nearest base with a proper name stands for it."""
    names = (str(kind.__name__) for kind in type(error).__mro__)
    return next(name for name in names if name.isidentifier())[:LONGEST_CLASS]


def cleaned(words: str) -> str:
    """Text of any origin, cut and cleaned so that it can be stored."""
    words = words[:LONGEST_MESSAGE].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return words.encode(errors="replace").decode()
