"""How far each projection has followed the log."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.database import Database
from recovery_journal.projections.fold_hash import fold_hash
from recovery_journal.projections.projection import Projection

TABLE: Final = files(__package__).joinpath("tracking.sql")

REGISTER = """
INSERT INTO projection_tracking (projection, position, fold_version, fold_hash)
VALUES (%(projection)s, 0, %(fold_version)s, %(fold_hash)s)
ON CONFLICT (projection) DO NOTHING
"""

READ = """
SELECT projection, position, state, fold_version, fold_hash, error, changed_at
FROM projection_tracking
WHERE projection = %(projection)s
"""

READ_ALL = """
SELECT projection, position, state, fold_version, fold_hash, error, changed_at
FROM projection_tracking
ORDER BY projection
"""

ADVANCE = """
UPDATE projection_tracking
SET position = %(position)s, state = 'following', error = NULL, changed_at = clock_timestamp()
WHERE projection = %(projection)s
"""

STOP = """
UPDATE projection_tracking
SET state = 'stopped', error = %(error)s, changed_at = clock_timestamp()
WHERE projection = %(projection)s
"""

RESTART = """
UPDATE projection_tracking
SET position = %(position)s, state = 'following', error = NULL,
    fold_version = %(fold_version)s, fold_hash = %(fold_hash)s, changed_at = clock_timestamp()
WHERE projection = %(projection)s
"""


# Rows of an unknown fold are left alone until a rebuild.
DISOWN: Final = """
UPDATE projection_tracking
SET fold_version = 0,
    fold_hash = %(reason)s,
    position = least(position, (SELECT coalesce(max(notification_id), 0) FROM journal_events)),
    changed_at = clock_timestamp()
WHERE projection = ANY(%(projections)s)
"""


class FollowingState(StrEnum):
    """Whether a projection is followed or stopped."""

    FOLLOWING = "following"
    STOPPED = "stopped"


class Followed(Struct, frozen=True, kw_only=True):
    """One projection's place: every event at or below `position` is in its rows.

    A stopped one is before an event that it could not fold, which `error` names. The rows belong to
    the fold of this version and hash.
    """

    projection: str
    position: int
    state: FollowingState
    fold_version: int
    fold_hash: str
    error: str | None
    changed_at: datetime

    def is_of(self, projection: Projection[Any]) -> bool:
        """Whether this program's fold is the one that the rows belong to."""
        return (self.fold_version, self.fold_hash) == (projection.version, fold_hash(projection))


class ProjectionTracking:
    """The table of positions. Methods with a cursor work inside of the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, cursor: Cursor[DictRow]) -> None:
        """Make the table, if it is not there."""
        cursor.execute(TABLE.read_bytes())

    def register(self, cursor: Cursor[DictRow], projection: Projection[Any]) -> None:
        """Register the projection at the beginning of the log, unless it is known already."""
        cursor.execute(REGISTER, fold_of(projection))

    def find(self, projection: str) -> Followed | None:
        """One projection's place; None where it is not known."""
        with self._database.cursor() as cursor:
            row = cursor.execute(READ, {"projection": projection}).fetchone()
        return None if row is None else _followed(row)

    def all(self) -> list[Followed]:
        """The places of all projections, in order of name."""
        with self._database.cursor() as cursor:
            return [_followed(row) for row in cursor.execute(READ_ALL).fetchall()]

    def lock(
        self, cursor: Cursor[DictRow], projection: str, *, is_patient: bool = False
    ) -> Followed | None:
        """The projection's place, locked until the transaction ends, which the loss of the
        connection ends too. None where another transaction holds it, or with `is_patient` where it
        is not known."""
        statement = READ + ("FOR UPDATE" if is_patient else "FOR UPDATE SKIP LOCKED")
        row = cursor.execute(statement.encode(), {"projection": projection}).fetchone()
        return None if row is None else _followed(row)

    def advance(self, cursor: Cursor[DictRow], projection: str, position: int) -> None:
        """Record, in the transaction of the rows, the position that they have reached."""
        cursor.execute(ADVANCE, {"projection": projection, "position": position}, prepare=True)

    def stop(self, cursor: Cursor[DictRow], projection: str, error: str) -> None:
        """Record why the projection has stopped."""
        text = error.replace("\0", "\N{REPLACEMENT CHARACTER}")
        cursor.execute(STOP, {"projection": projection, "error": text})

    def restart(self, cursor: Cursor[DictRow], projection: Projection[Any], position: int) -> None:
        """Record, in the transaction of the switch, the position that rebuilt rows have reached."""
        cursor.execute(RESTART, {**fold_of(projection), "position": position})

    def disown(self, cursor: Cursor[DictRow], projections: Sequence[str], reason: str) -> None:
        """Mark rows as those of no fold, because they contain events that are lost or skipped."""
        cursor.execute(DISOWN, {"projections": list(projections), "reason": reason})


def fold_of(projection: Projection[Any]) -> dict[str, Any]:
    """A projection's fold, in the order and by the names of the columns that record one."""
    return {
        "projection": projection.name,
        "fold_version": projection.version,
        "fold_hash": fold_hash(projection),
    }


def _followed(row: DictRow) -> Followed:
    return msgspec.convert(row, Followed)
