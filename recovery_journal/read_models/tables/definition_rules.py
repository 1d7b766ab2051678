"""Validates a user's projection class before its table is created."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

from msgspec.structs import fields

from recovery_journal.domain.bounds import LARGEST_NUMBER
from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.events import RecoveryEvent
from recovery_journal.domain.wording import shown
from recovery_journal.projections.projection import (
    Index,
    Listing,
    PositionRow,
    Projection,
    StreamRow,
)

NAME: Final = re.compile(r"[a-z](_?[a-z0-9])*")
LONGEST_NAME: Final = 30
LONGEST_INDEX_NAME: Final = 12
TAKEN: Final = "tracking"  # projection_tracking holds the positions of them all

KEY: Final = "key"
ACTIVE: Final = "active"
AS_OF: Final = "as_of"
"""The indexes of primary keys, of lists, and of lists in the past."""

POSITION: Final = "bigint"
NOT_NULL: Final = " NOT NULL"


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()


def require_definition(projection: Projection[Any]) -> None:
    """Raise `InvalidInput` for the first thing that the class defines wrongly, or not at all."""
    _refuse_first(projection, _faults(projection))
    _refuse_first(projection, _faults_of_names(projection))


def require_listing(projection: Projection[Any], columns: Mapping[str, str]) -> None:
    """Raise `InvalidInput` unless the rows, with columns of these types, satisfy the projection's
    `Listing`, so that its past states can be queried."""
    if projection.listing is not None:
        _refuse_first(projection, _faults_of_list(projection, projection.listing, columns))


def _refuse_first(projection: Projection[Any], faults: Iterator[tuple[str, str, str]]) -> None:
    for what, found, needed in faults:
        name = type(projection).__name__
        raise InvalidInput(
            f"the {what} of projection {name}", found=found, needed=needed, do="correct its class"
        )


def _faults(projection: Projection[Any]) -> Iterator[tuple[str, str, str]]:
    """The fault of each wrong definition, the value found, and the value needed instead."""
    said: dict[str, Any] = {
        name: getattr(projection, name, NOTHING) for name in Projection.__annotations__
    }
    if not isinstance(said["name"], str):
        yield "name", shown(said["name"]), "text"
    version = said["version"]
    if type(version) is not int or not 0 < version <= LARGEST_NUMBER:
        yield "version", shown(version), f"a whole number from 1 to {LARGEST_NUMBER}"
    if type(said["is_inline"]) is not bool:
        yield "is_inline", shown(said["is_inline"]), "True or False"
    row_type = said["row_type"]
    if not isinstance(row_type, type) or not issubclass(row_type, StreamRow | PositionRow):
        yield "row_type", shown(row_type), "a subclass of StreamRow or PositionRow"
    known = {field.name for field in fields(row_type)}
    if not _are_fields(said["key_fields"], known) or not said["key_fields"]:
        yield "key_fields", shown(said["key_fields"]), "names of fields of its rows, one at least"
    if not _is_list_of(said["indexes"], Index) or not all(
        _is_index(index, known) for index in said["indexes"]
    ):
        yield "indexes", shown(said["indexes"]), "Index(name, fields) over fields of its rows"
    events = said["events"]
    if events is not None and not (
        isinstance(events, Sequence)
        and all(isinstance(it, type) and issubclass(it, RecoveryEvent) for it in events)
    ):
        yield "events", shown(events), "classes of events, or None for all"
    listing = said["listing"]
    if listing is not None and not (
        isinstance(listing, Listing) and _is_list_of(listing.order, str) and listing.order
    ):
        yield "listing", shown(listing), "a Listing with an order, or None"


def _faults_of_names(projection: Projection[Any]) -> Iterator[tuple[str, str, str]]:
    """Names end up in identifiers, which PostgreSQL cuts at 63 bytes without an error."""
    limits = [("name", projection.name, LONGEST_NAME)]
    limits += [("index name", index.name, LONGEST_INDEX_NAME) for index in projection.indexes]
    for what, name, longest in limits:
        if not NAME.fullmatch(name) or len(name) > longest or name == TAKEN:
            form = f"at most {longest} small letters, digits and single underscores, not {TAKEN}"
            yield what, repr(name), form
    first = projection.key_fields[0]
    if projection.is_stream_keyed and first != "attempt_id":
        yield (
            "key",
            f"{first!r} first",
            "'attempt_id' first, for rows that derive from one stream; others are PositionRows",
        )


def _faults_of_list(
    projection: Projection[Any], listing: Listing, columns: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    numbers = {"entered_position": POSITION + NOT_NULL, "left_position": POSITION}
    numbers[f"entered_{projection.guard}"] = POSITION + NOT_NULL
    for field, kind in numbers.items():
        if columns.get(field) != kind:
            needed = "int" if kind.endswith(NOT_NULL) else "int | None"
            found = columns.get(field, f"no field {field!r}")
            yield "listing", found, f"a field {field!r} of type {needed}"
    for field in (*listing.order, *listing.descending):
        if field not in columns:
            yield "listing", f"no field {field!r}", "fields of the row in its order"
    for field, kind in columns.items():
        if field.startswith("left_") and kind.endswith(NOT_NULL):
            found = f"field {field!r} that cannot be None"
            yield "listing", found, "None while an entry is on the list"
    for index in projection.indexes:
        if index.name in (ACTIVE, AS_OF):
            found = f"an index named {index.name!r}"
            yield "listing", found, "another name, for the list has one of its own"


def _is_index(index: Index, known: set[str]) -> bool:
    partly = () if index.only_while_null is None else (index.only_while_null,)
    lists = (index.fields, index.descending, partly)
    return (
        _is_list_of([index.name], str)
        and bool(index.fields)
        and all(_are_fields(names, known) for names in lists)
    )


def _are_fields(names: object, known: set[str]) -> bool:
    return _is_list_of(names, str) and set(names) <= known


def _is_list_of(values: object, kind: type) -> TypeGuard[Sequence[Any]]:
    return (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and all(isinstance(value, kind) for value in values)
    )
