"""Validates a user's projection class before its table is created."""

from collections.abc import Iterator, Sequence
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


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()


def require_definition(projection: Projection[Any]) -> None:
    """Raise `InvalidInput` for the first thing that the class defines wrongly, or not at all."""
    for what, found, needed in _faults(projection):
        raise InvalidInput(
            f"the {what} of projection {type(projection).__name__}",
            found=found,
            needed=needed,
            do="correct its class",
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
