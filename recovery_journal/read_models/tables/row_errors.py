"""The errors of rows that no table can hold, or that this program cannot read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg
from psycopg import errors

from recovery_journal.domain.errors import RowsUnreadable, RowUnstorable
from recovery_journal.domain.wording import message_of
from recovery_journal.projections.projection import Projection


class RowUnfit(ValueError):
    """A row with a value that JSON cannot express."""


UNSTORABLE: Final = (RowUnfit, psycopg.DataError, errors.NotNullViolation)

# The errors by which PostgreSQL reports that a table or its columns are not those that a query
# names, and by which PostgreSQL or the driver report that a value cannot be computed with or has no
# counterpart here, such as a time before year 1.
UNREADABLE: Final = (
    msgspec.MsgspecError,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.DatatypeMismatch,
    errors.CannotCoerce,
    psycopg.DataError,
)


@contextmanager
def translating_write_errors(projection: Projection[Any]) -> Iterator[None]:
    """Raises `RowUnstorable` in place of the errors of the encoder or PostgreSQL for rows that a
    user's fold has made, which may hold values that no column can."""
    try:
        yield
    except UNSTORABLE as error:
        reason = " ".join(message_of(error).split())
        raise RowUnstorable(projection.name, reason=reason) from error


@contextmanager
def translating_read_errors(projection: Projection[Any]) -> Iterator[None]:
    """Raises `RowsUnreadable` in place of the errors of PostgreSQL or the decoder for rows that are
    not of the projection's type: another fold may have made them."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise RowsUnreadable(projection.name, reason=reason) from error
