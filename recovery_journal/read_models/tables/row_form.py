"""The form of a projection's rows in PostgreSQL: columns, JSON for batches, and CSV for COPY.

Rows are transferred in whole batches, encoded and decoded by msgspec, so that no Python runs per
column. PostgreSQL's text cannot hold a NUL; in a row it becomes U+FFFD.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic

import msgspec
from msgspec import inspect
from msgspec.structs import astuple

from recovery_journal.domain.wording import message_of
from recovery_journal.projections.projection import RowT
from recovery_journal.read_models.tables.row_errors import RowUnfit

TEXT = 'text COLLATE "C"'  # the order of bytes, which is also Python's

_SIMPLE: dict[type[inspect.Type], str] = {
    inspect.StrType: TEXT,
    inspect.IntType: "bigint",
    inspect.FloatType: "double precision",
    inspect.BoolType: "boolean",
    inspect.DateTimeType: "timestamptz",
}

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_REPLACEMENT = rb"\1" + "\N{REPLACEMENT CHARACTER}".encode()
_ESCAPE = re.compile(rb'\\(["\\]|u[0-9a-f]{4}|[bfnrt])')
_MEANINGS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class RowForm(Generic[RowT]):
    """The form of one type of row."""

    def __init__(self, row_type: type[RowT]) -> None:
        self._row_type = row_type
        self._encoder = msgspec.json.Encoder(order="sorted")

    @cached_property
    def columns(self) -> dict[str, str]:
        """Each field's column type, with NOT NULL where the field cannot be None."""
        described = inspect.type_info(self._row_type)
        assert isinstance(described, inspect.StructType)
        return {field.encode_name: _column(field.type) for field in described.fields}

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[list[RowT]]:
        return msgspec.json.Decoder(list[self._row_type])  # type: ignore[name-defined]  # made here

    @cached_property
    def _nested(self) -> tuple[int, ...]:
        kinds = self.columns.values()
        return tuple(at for at, kind in enumerate(kinds) if kind.startswith("jsonb"))

    def to_json(self, rows: Sequence[RowT]) -> bytes:
        """All rows as one JSON array. Equal rows give equal bytes. Raises `RowUnfit`."""
        return _without_nul(self._encoded(rows))

    def from_json(self, text: str) -> list[RowT]:
        """The rows of a JSON array, as PostgreSQL's json_agg makes it."""
        return self._decoder.decode(text)

    def to_bytes(self, row: RowT) -> bytes:
        """One row, as it is compared and digested. Raises `RowUnfit`."""
        return _without_nul(self._encoded(row))

    def to_csv(self, rows: Sequence[RowT]) -> bytes:
        """The rows as CSV whose escape is a backslash and whose NULL is an unquoted `null`: JSON
        arrays without their brackets, nested values as strings of JSON. Raises `RowUnfit`."""
        if not rows:
            return b""
        try:
            return self._csv(rows)
        except Exception as error:  # a value of the user's own may raise anything
            raise RowUnfit(message_of(error)) from error

    def _encoded(self, rows: object) -> bytes:
        try:
            return self._encoder.encode(rows)
        except Exception as error:  # a value of the user's own may raise anything
            raise RowUnfit(message_of(error)) from error

    def _csv(self, rows: Sequence[RowT]) -> bytes:
        flat = [list(astuple(row)) for row in rows]
        quote_count = sum(self._flatten(flat, at) for at in self._nested)
        # A line break never occurs inside a JSON value, so lines are rows.
        lines = _without_nul(self._encoder.encode_lines(flat)).split(b"\n")
        csv = b"\n".join([line[1:-1] for line in lines])
        # Quotes have the same escape in both; others are rare.
        if csv.count(b"\\") != quote_count:
            csv = _ESCAPE.sub(_as_csv, csv)
        return csv

    def _flatten(self, flat: list[list[Any]], at: int) -> int:
        """Replace one column's nested values by strings of JSON. Returns how many quotes in them
        have to be escaped."""
        nested = [(values, value) for values in flat if (value := values[at]) is not None]
        lines = _without_nul(self._encoder.encode_lines([value for _, value in nested])).decode()
        for (values, _), line in zip(nested, lines.split("\n"), strict=False):
            values[at] = line
        return lines.count('"')


def _column(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        others = [of for of in kind.types if not isinstance(of, inspect.NoneType)]
        is_optional = len(others) < len(kind.types)
        name = _type_name(others[0]) if len(others) == 1 else "jsonb"
        return name if is_optional else f"{name} NOT NULL"
    return f"{_type_name(kind)} NOT NULL"


def _type_name(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.EnumType):
        is_text = all(isinstance(member.value, str) for member in kind.cls)
        return TEXT if is_text else "jsonb"
    return _SIMPLE.get(type(kind), "jsonb")


def _without_nul(encoded: bytes) -> bytes:
    return _NUL.sub(_REPLACEMENT, encoded) if rb"\u0000" in encoded else encoded


def _as_csv(escape: "re.Match[bytes]") -> bytes:
    """Translate JSON's escapes into CSV's, which has only those of quote and backslash."""
    letter = escape[1]
    if letter.startswith(b"u"):
        return chr(int(letter[1:], 16)).encode()
    return _MEANINGS.get(letter, escape[0])
