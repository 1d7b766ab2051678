"""Writes rows that a user's fold has made, which may hold values that no column can."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from recovery_journal.domain.errors import RowUnstorable
from recovery_journal.domain.wording import message_of
from recovery_journal.projections.projection import Projection


class RowUnfit(ValueError):
    """A row with a value that JSON cannot express."""


UNSTORABLE: Final = (RowUnfit, psycopg.DataError, psycopg.errors.NotNullViolation)


@contextmanager
def translating_write_errors(projection: Projection[Any]) -> Iterator[None]:
    """Raises `RowUnstorable` in place of the errors of the encoder or PostgreSQL for such rows."""
    try:
        yield
    except UNSTORABLE as error:
        reason = " ".join(message_of(error).split())
        raise RowUnstorable(projection.name, reason=reason) from error
