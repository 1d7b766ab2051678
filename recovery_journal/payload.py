"""Payloads: inputs, outputs, states and results, as deterministic MessagePack.

The same value always has the same bytes, so its digest is a digest of the value. MessagePack keeps
bytes apart from text; keys are text; tuples come back as lists and sets as sorted lists.
"""

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from domain.digest import payload_digest
from domain.errors import InvalidInput, PayloadCorrupt
from domain.wording import message_of

LARGEST_PAYLOAD: Final = 64 * 1024 * 1024  # bytes; far below what one PostgreSQL value may hold

Value: TypeAlias = Any
"""Whatever a user stores: of any type that MessagePack can encode."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder()


class Payload(Struct, frozen=True):
    """An encoded value and its digest."""

    encoded: bytes
    digest: str


def encode(value: Value, *, name: str) -> Payload:
    """Encode a value of the user's. Raises `InvalidInput` where it cannot be stored."""
    try:
        encoded = _encoder.encode(value)
    except Exception as error:  # a value of the user's own, as a time zone, may raise anything
        raise InvalidInput(
            name,
            found=f"a value that cannot be encoded ({type(error).__name__}: {message_of(error)})",
            needed="None, booleans, 64-bit integers, floats, text, bytes, dates, "
            "and lists, structs or dicts with text keys of those",
            do="convert it first",
        ) from error
    if len(encoded) > LARGEST_PAYLOAD:
        raise InvalidInput(
            name,
            found=f"{len(encoded):,} bytes",
            needed=f"at most {LARGEST_PAYLOAD:,} bytes",
            do="store it elsewhere and record its address",
        )
    return Payload(encoded, payload_digest(encoded))


def decode(encoded: bytes, *, digest: str, what: str) -> Value:
    """The value again. Raises `PayloadCorrupt` where the bytes are not those that were stored."""
    found = payload_digest(encoded)
    if found != digest:
        raise PayloadCorrupt(what, found=found, needed=digest)
    return decode_digested(encoded, what=what)


def decode_digested(encoded: bytes, *, what: str) -> Value:
    """The value of bytes whose digest has been taken already. Raises `PayloadCorrupt` where they
    say nothing."""
    try:
        return _decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadCorrupt(
            what,
            found=f"{payload_digest(encoded)} of bytes that say nothing ({error})",
            needed="MessagePack",
        ) from error
