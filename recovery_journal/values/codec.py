"""User codecs: how values of types outside of the table of extensions are stored."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from recovery_journal import inputs
from recovery_journal.domain.ranges import require_kind
from recovery_journal.domain.wording import shown
from recovery_journal.values.extensions import SUPPORTED


class Codec(Struct, frozen=True):
    """Store values of exactly this `type`, not of its subclasses.

    `encode` maps such a value to a supported one, or to one with a codec of its own; `decode` maps
    that back. Both are pure. The `name` is stored with each value: keep it for as long as any of
    them is to be read.
    """

    name: str
    type: type[Any]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class Codecs:
    """Index the codecs of one journal by exact type and by name. Raises `InvalidInput` for names or
    types that occur twice, and for types that need no codec."""

    def __init__(self, codecs: Sequence[Codec] = ()) -> None:
        require_kind("codecs", codecs, Sequence, "a list of Codecs")
        self.by_type: dict[type[Any], Codec] = {}
        self.by_name: dict[str, Codec] = {}
        for codec in inputs.several("codecs", codecs):
            _require(codec)
            if codec.name in self.by_name:
                raise _twice(f"the name {codec.name!r}")
            if codec.type in self.by_type:
                raise _twice(f"the type {codec.type.__name__}")
            self.by_name[codec.name] = self.by_type[codec.type] = codec


def _require(codec: Codec) -> None:
    require_kind("codecs", codec, Codec, "a list of Codecs")
    inputs.identifier("the name of a codec", codec.name)
    name = f"the codec {codec.name!r}"
    if not isinstance(codec.type, type):
        raise inputs.refused(name, shown(codec.type), "a class as its type", "pass one")
    if codec.type in SUPPORTED:
        raise inputs.refused(
            name,
            f"the type {codec.type.__name__}, which is stored without a codec",
            "a type of your own",
            "leave the codec out",
        )
    inputs.plain_function(f"encode of {name}", codec.encode)
    inputs.plain_function(f"decode of {name}", codec.decode)


def _twice(what: str) -> Exception:
    return inputs.refused("codecs", f"{what} twice", "one codec for each", "leave one out")
