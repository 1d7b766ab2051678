"""Encoding: from a value to MessagePack with extension types, or a refusal with the path.

msgspec alone encodes subclasses, enumerations and dataclasses as something else without an error.
So the writer compares exact types first: of plain values in bulk, of others part by part.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from msgspec import Raw
from msgspec.msgpack import Encoder, Ext

from recovery_journal.domain.wording import message_of, shown
from recovery_journal.process.callables import finished
from recovery_journal.values.codec import Codec, Codecs
from recovery_journal.values.extensions import BY_TYPE, CODEC_CODE, SUPPORTED, Extension
from recovery_journal.values.plain import (
    DEEPEST,
    LARGEST_PAYLOAD,
    PLAIN,
    Value,
    is_plain,
    require_fewer,
)
from recovery_journal.values.reader import Reader
from recovery_journal.values.refusals import CannotWrite, CodecBroke, key_part, type_name

CHECKED: Final = frozenset({int, str})
"""Plain types with values that msgspec refuses, without saying where they are."""

INTEGERS: Final = range(-(2**63), 2**64)


class Writer:
    """Encode values. With `is_canonical` the order of a dict's keys does not change the bytes;
    otherwise a dict keeps its order. Raises `CannotWrite`."""

    def __init__(self, codecs: Codecs, reader: Reader, *, is_canonical: bool = False) -> None:
        self._codecs = codecs
        self._reader = None if is_canonical else reader
        self._encoder = Encoder(order="deterministic" if is_canonical else None)

    def write(self, value: Value) -> bytes:
        """Encode one value."""
        try:
            form = value if is_plain(value) else self._builder(PLAIN).form(value, 0)
            return self._encoder.encode(form)
        except (OverflowError, UnicodeEncodeError):
            self._builder(PLAIN - CHECKED).form(value, 0)
            raise

    def _builder(self, unchecked: frozenset[type]) -> "_FormBuilder":
        return _FormBuilder(self._encoder, self._codecs, self._reader, unchecked)


class _FormBuilder:
    """Build the form of one value that msgspec encodes. Accepts `unchecked` types as they are."""

    def __init__(
        self, encoder: Encoder, codecs: Codecs, reader: Reader | None, unchecked: frozenset[type]
    ) -> None:
        self._encode = encoder.encode
        self._codecs = codecs.by_type
        self._reader = reader
        self._unchecked = unchecked
        self._count = 0
        self._held_bytes = 0

    def form(self, value: Value, depth: int) -> Value:
        """Map a value, at this depth, to plain values and extension types."""
        kind = type(value)
        if kind in PLAIN:
            return value if kind in self._unchecked else _checked(value)
        if depth >= DEEPEST:
            raise CannotWrite(f"nested deeper than {DEEPEST} levels, or within itself")
        if kind is list:
            return self._forms(value, depth + 1)
        if kind is dict:
            return self._dict(value, depth + 1)
        if extension := BY_TYPE.get(kind):
            return self._ext(extension.code, lambda: self._body(extension, value, depth + 1))
        if codec := self._codecs.get(kind):
            return self._ext(CODEC_CODE, lambda: self._with_codec(codec, value, depth + 1))
        raise CannotWrite(
            _unsupported(value),
            do="convert it first, or open the journal with a codec for exactly its type",
        )

    def _ext(self, code: int, make: Callable[[], bytes]) -> Ext:
        """Make an extension. Its size replaces that of the extensions nested in it."""
        held_before = self._held_bytes
        body = make()
        self._held_bytes = held_before + len(body)
        if self._held_bytes > LARGEST_PAYLOAD:
            raise CannotWrite(f"more than {LARGEST_PAYLOAD:,} bytes")
        return Ext(code, body)

    def _forms(self, values: Collection[Value], depth: int) -> list[Value]:
        self._count = require_fewer(self._count + len(values))
        unchecked, forms = self._unchecked, []
        try:
            for value in values:  # no comprehension: a refusal needs the index
                forms.append(value if type(value) in unchecked else self.form(value, depth))  # noqa: PERF401
        except CannotWrite as refused:
            refused.path.append(f"[{len(forms)}]")
            raise
        return forms

    def _dict(self, values: dict[Value, Value], depth: int) -> dict[str, Value]:
        self._count = require_fewer(self._count + len(values))
        unchecked, forms = self._unchecked, {}
        for key, value in values.items():
            try:
                _require_text(key, is_checked=str not in unchecked)
                forms[key] = value if type(value) in unchecked else self.form(value, depth)
            except CannotWrite as refused:
                refused.path.append(key_part(key))
                raise
        return forms

    def _body(self, extension: Extension, value: Value, depth: int) -> bytes:
        if not extension.is_container:
            try:
                return self._encode(extension.form(value))
            except CannotWrite as refused:
                raise CannotWrite(f"{type_name(value)} {refused.found}") from None
            except UnicodeEncodeError:
                zone = "in a time zone whose name has a lone surrogate"
                raise CannotWrite(f"{type_name(value)} {zone}") from None
        if extension.is_ordered:
            return self._encode(self._forms(value, depth))
        return self._encode([Raw(element) for element in sorted(self._elements(value, depth))])

    def _elements(self, values: Collection[Value], depth: int) -> Iterable[bytes]:
        """Encode each element of a set on its own; the caller sorts them by their bytes."""
        self._count = require_fewer(self._count + len(values))
        for value in values:
            try:
                yield self._encode(self.form(value, depth))
            except CannotWrite as refused:
                refused.path.append(f"{{{shown(value)}}}")
                raise

    def _with_codec(self, codec: Codec, value: Value, depth: int) -> bytes:
        """Encode a value with its user codec; refuse one that the codec does not decode again."""
        try:
            form = self.form(_encoded_by(codec, value), depth)
        except CannotWrite as refused:
            refused.path.append(f"<{codec.name}>")
            raise
        body = self._encode([codec.name, self._encode(form)])
        if self._reader is not None:
            try:
                self._reader.read_with_codec(body)
            except CodecBroke as broke:
                found = f"a {type_name(value)} of which decode of codec {broke.name!r} made"
                raise CannotWrite(f"{found} {broke.found}") from broke
        return body


def _encoded_by(codec: Codec, value: Value) -> Value:
    """Call the encode function of a user codec."""
    try:
        return finished(f"encode of codec {codec.name!r}", codec.encode(value))
    except Exception as error:
        found = f"a {type_name(value)} of which encode of codec {codec.name!r} made"
        raise CannotWrite(f"{found} {type(error).__name__}: {message_of(error)}") from error


def _require_text(key: object, *, is_checked: bool) -> None:
    if type(key) is not str:
        raise CannotWrite(f"a key of type {type_name(key)}, not str")
    if is_checked:
        _checked(key)


def _checked(value: Value) -> Value:
    """Refuse an int or str that MessagePack cannot hold."""
    if type(value) is int and value not in INTEGERS:
        raise CannotWrite("int of more than 64 bits")
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise CannotWrite("str with a lone surrogate") from None
    return value


def _unsupported(value: Value) -> str:
    """Name a type that is not accepted, and the accepted type that it derives from."""
    base = next((it for it in type(value).__mro__[1:] if it in SUPPORTED), None)
    return type_name(value) + (f", a subclass of {base.__name__}" if base else "")
