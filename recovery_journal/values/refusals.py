"""Why a value cannot be encoded, with its path; why one cannot be decoded here."""

from typing import Final

from recovery_journal.domain.wording import shown

LONGEST_PATH: Final = 12
"""Parts of a path that a message shows; a longer path is cut in its middle."""


class CannotWrite(Exception):
    """A part of a value is not accepted. Each enclosing part appends itself to `path`."""

    def __init__(self, found: str, *, do: str = "convert that part first") -> None:
        super().__init__(found)
        self.found = found
        self.do = do
        self.path: list[str] = []

    def at(self, name: str) -> str:
        """Render argument, path and finding, as `output.lines[3].price: Money`."""
        parts = self.path[::-1]
        if len(parts) > LONGEST_PATH:
            half = LONGEST_PATH // 2
            parts = [*parts[:half], "…", *parts[-half:]]
        return f"{name}{''.join(parts)}: {self.found}"


class CannotRead(Exception):
    """This process lacks what a stored value needs; the value itself is sound."""


class CodecBroke(Exception):
    """The decode function of a user codec failed."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(name, found)
        self.name = name
        self.found = found


def key_part(key: object) -> str:
    """Render a dict key as a part of a path."""
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{shown(key)}]"


def type_name(value: object) -> str:
    """Name the type of a value in an error."""
    return type(value).__name__
