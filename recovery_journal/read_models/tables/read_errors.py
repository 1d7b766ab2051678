"""Reads rows that may be those of another fold, which this program may not be able to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg
from psycopg import errors

from recovery_journal.domain.errors import RowsUnreadable
from recovery_journal.projections.projection import Projection

# The errors by which PostgreSQL reports that a table or its columns are not those that a query
# names, and by which PostgreSQL or the driver report that a value cannot be computed with or has no
# counterpart here, such as a time before year 1.
SHAPE_ERRORS: Final = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.DatatypeMismatch,
    errors.CannotCoerce,
    psycopg.DataError,
)


@contextmanager
def translating_read_errors(projection: Projection[Any]) -> Iterator[None]:
    """Raises `RowsUnreadable` in place of the errors of PostgreSQL or the decoder for rows that are
    not of the projection's type."""
    try:
        yield
    except (msgspec.MsgspecError, *SHAPE_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise RowsUnreadable(projection.name, reason=reason) from error
