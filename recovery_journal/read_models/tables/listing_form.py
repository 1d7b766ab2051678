"""The requirements on the rows of a list, so that its past states can be queried."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.projections.projection import Listing, Projection

ACTIVE: Final = "active"
AS_OF: Final = "as_of"
POSITION: Final = "bigint"
NOT_NULL: Final = " NOT NULL"


def require_listing(projection: Projection[Any], columns: Mapping[str, str]) -> None:
    """Raise `InvalidInput` unless the rows, with columns of these types, satisfy the projection's
    `Listing`; a projection without one has no requirements."""
    listing = projection.listing
    if listing is None:
        return
    for found, needed in _faults(projection, listing, columns):
        raise InvalidInput(
            f"the listing of projection {projection.name!r}",
            found=found,
            needed=needed,
            do="correct its row type, or leave the listing out",
        )


def _faults(
    projection: Projection[Any], listing: Listing, columns: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The value found at each fault, and the value needed instead."""
    numbers = {"entered_position": POSITION + NOT_NULL, "left_position": POSITION}
    numbers[f"entered_{projection.guard}"] = POSITION + NOT_NULL
    for field, kind in numbers.items():
        if columns.get(field) != kind:
            is_optional = not kind.endswith(NOT_NULL)
            needed = f"a field {field!r} of type int{' | None' if is_optional else ''}"
            yield columns.get(field, f"no field {field!r}"), needed
    for field in (*listing.order, *listing.descending):
        if field not in columns:
            yield f"no field {field!r}", "fields of the row in its order"
    for field, kind in columns.items():
        if field.startswith("left_") and kind.endswith(NOT_NULL):
            yield f"field {field!r} that cannot be None", "None while an entry is on the list"
    for index in projection.indexes:
        if index.name in (ACTIVE, AS_OF):
            yield f"an index named {index.name!r}", "another name, for the list has one of its own"
