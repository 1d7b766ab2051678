"""Why a value cannot be written, with the path to it; why one cannot be read here."""

from typing import Final

from domain.wording import shown

LONGEST_PATH: Final = 12
"""Parts of a path that are shown; of a longer one, half of them at each end."""


class CannotWrite(Exception):
    """A part of a value is not accepted. `path` is built while it passes the parts around it."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found
        self.path: list[str] = []

    def at(self, name: str) -> str:
        """The argument, the path within it and what was found there."""
        parts = self.path[::-1]
        if len(parts) > LONGEST_PATH:
            half = LONGEST_PATH // 2
            parts = [*parts[:half], "…", *parts[-half:]]
        return f"{name}{''.join(parts)}: {self.found}"


class CannotRead(Exception):
    """This process lacks what a stored value needs: nothing is wrong with the value."""


class CodecBroke(Exception):
    """A codec of the user's did not give a value again."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(name, found)
        self.name = name
        self.found = found


def key_part(key: object) -> str:
    """A key of a dict, as a part of a path."""
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{shown(key)}]"


def type_name(value: object) -> str:
    """The name of a value's type, as an error shows it."""
    return type(value).__name__
