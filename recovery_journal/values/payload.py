"""Payloads: inputs, outputs, states and results, as MessagePack with extension types.

A value is read with the exact type, order and content with which it was written, or is refused. A
payload has two digests: one of the stored bytes, and a canonical one, to compare values between
processes, which the order of a dict's keys does not change.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct

from recovery_journal.domain.digest import canonical_digest, payload_digest
from recovery_journal.domain.errors import CodecFailed, CodecMissing, InvalidInput, PayloadCorrupt
from recovery_journal.domain.wording import class_of, message_of
from recovery_journal.values import plain
from recovery_journal.values.codec import Codec, Codecs
from recovery_journal.values.plain import DEEPEST, LARGEST_PAYLOAD
from recovery_journal.values.reader import Reader
from recovery_journal.values.refusals import CannotRead, CannotWrite, CodecBroke
from recovery_journal.values.writer import Writer

NEEDED: Final = (
    "None, bool, int of 64 bits, float, str, bytes, list, tuple, set, frozenset, dict with text "
    "keys, Decimal, UUID, date, time, timedelta or datetime, no subclasses, and at most "
    f"{DEEPEST} levels of them"
)


Value: TypeAlias = plain.Value

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class Payload(Struct, frozen=True):
    """An encoded value and the digest of its bytes."""

    encoded: bytes
    digest: str


class Values:
    """Encode and decode values, with the codecs of one journal."""

    def __init__(self, codecs: Sequence[Codec] = ()) -> None:
        known = Codecs(codecs)
        self._reader = Reader(known)
        self._writer = Writer(known, self._reader)
        self._canonical = Writer(known, self._reader, is_canonical=True)

    def encode(self, value: Value, *, name: str) -> Payload:
        """Encode a value. Raises `InvalidInput`, with the path, where it would not come back."""
        encoded = _written(self._writer, value, name)
        return Payload(encoded, payload_digest(encoded))

    def canonical_digest(self, value: Value, *, name: str) -> str:
        """Digest a value by types and contents, independent of the order of dict keys and set
        elements, so of the process. Raises `InvalidInput`."""
        return canonical_digest(_written(self._canonical, value, name))

    def decode(self, encoded: bytes, *, digest: str, what: str) -> Value:
        """Verify the digest of the stored bytes, then decode them. Raises `PayloadCorrupt` for
        another digest, and as `decode_digested`."""
        require_digest(encoded, digest=digest, what=what)
        return self.decode_digested(encoded, what=what)

    def decode_digested(self, encoded: bytes, *, what: str) -> Value:
        """Decode bytes whose digest is verified already.

        Raises `PayloadCorrupt` where they are no value, `CodecMissing` where this process lacks a
        codec, time zone or extension type, `CodecFailed` where a user codec fails.
        """
        try:
            return _with_room(self._reader.read, encoded)
        except CannotRead as error:
            raise CodecMissing(what, found=str(error)) from error
        except CodecBroke as error:
            raise CodecFailed(what, codec=error.name, found=error.found) from error
        except Exception as error:
            raise PayloadCorrupt(
                what,
                found=f"{payload_digest(encoded)} of bytes that are no value ({class_of(error)})",
                needed="MessagePack",
            ) from error


def require_digest(encoded: bytes, *, digest: str, what: str) -> bytes:
    """Return the bytes if they have this digest. Raises `PayloadCorrupt`."""
    found = payload_digest(encoded)
    if found != digest:
        raise PayloadCorrupt(what, found=found, needed=digest)
    return encoded


def _with_room(call: Callable[[Argument], Answer], argument: Argument) -> Answer:
    """Call the function; retry it in a thread, with a stack of its own, after a `RecursionError`:
    Python's recursion limit includes the frames that the caller uses already.

    Raises what the function raises; a `RecursionError` where a whole stack is too small.
    """
    try:
        return call(argument)
    except Exception as error:
        if not _is_out_of_room(error):
            raise
    with ThreadPoolExecutor(max_workers=1) as beside:
        return beside.submit(call, argument).result()


def _is_out_of_room(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, RecursionError):
        error = error.__cause__
    return error is not None


def _written(writer: Writer, value: Value, name: str) -> bytes:
    try:
        encoded = _with_room(writer.write, value)
    except CannotWrite as error:
        raise _refused(name, error.at(name), do=error.do) from error.__cause__
    except Exception as error:  # hash and repr of user types may raise anything
        raise _refused(name, f"{name}: {type(error).__name__}: {message_of(error)}") from error
    if len(encoded) > LARGEST_PAYLOAD:
        raise InvalidInput(
            name,
            found=f"{len(encoded):,} bytes",
            needed=f"at most {LARGEST_PAYLOAD:,} bytes",
            do="store it elsewhere and record its address",
        )
    return encoded


def _refused(name: str, found: str, *, do: str = "convert it first") -> InvalidInput:
    return InvalidInput(name, found=f"{found}, which cannot be encoded", needed=NEEDED, do=do)


BUILT_IN: Final = Values()
"""The value codec of a journal without user codecs."""

encode = BUILT_IN.encode
