"""Positions for reads of the past: settled ones, and those that times mean."""

from datetime import datetime

from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.domain.errors import StoreBusy, UnknownAttempt
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database, one
from recovery_journal.projections.moments import MOMENTS
from recovery_journal.read_models.following.settled_position import SETTLING_S, SettledPosition
from recovery_journal.read_models.tables.row_errors import translating_read_errors

# The query skips what the moments projection knows: at or below its position nothing was recorded
# after the moment. The next of its rows, if there is one, is behind the event that is searched.
LAST_BEFORE = """
WITH passed AS (
    SELECT notification_id AS position
    FROM journal_events
    WHERE notification_id > coalesce(
            (
                SELECT position
                FROM projection_moments
                WHERE latest_at <= %(moment)s
                ORDER BY latest_at DESC, position DESC
                LIMIT 1
            ),
            0
        )
        AND notification_id <= %(upto)s
        AND recorded_at > %(moment)s
    ORDER BY notification_id
    LIMIT 1
)
SELECT coalesce(max(notification_id), 0) AS position, EXISTS (TABLE passed) AS is_passed
FROM journal_events
WHERE notification_id < coalesce((TABLE passed), %(upto)s::bigint + 1)
"""

RECORDED_AT = """
SELECT recorded_at
FROM journal_events
WHERE notification_id <= %(position)s
ORDER BY notification_id DESC
LIMIT 1
"""

# Within a stream versions and positions grow together.
VERSION_AT = """
SELECT min(notification_id) AS first_position,
    max(originator_version) FILTER (WHERE notification_id <= %(position)s) AS version
FROM journal_events
WHERE originator_id = %(attempt_id)s
"""


class Positions:
    """Resolves `at` for reads of the past. The state at a settled position never changes."""

    def __init__(self, database: Database, reader: SettledReader) -> None:
        self._database = database
        self._reader = reader
        self._settled = SettledPosition(database, reader)

    def at(self, at: int | datetime) -> int:
        """The settled position that is meant: itself, or for a time the last position before the
        latest `recorded_at` so far passes that time.

        A time before the first event is position 0. A time at which events may have been recorded
        that are not committed yet is the last settled position now, and may be a later one in a
        later call. Raises `InvalidInput` for a position above the last one, `StoreBusy` for one
        below which events are still being committed.
        """
        if isinstance(at, datetime):
            return self._at_time(inputs.moment("at", at))
        position = inputs.whole_number("at", at, inputs.POSITIONS)
        self._require(position)
        return position

    def time_of(self, position: int) -> datetime | None:
        """The time at which the last event at or below a position was recorded; None before the
        first."""
        with self._database.cursor() as cursor:
            row = cursor.execute(RECORDED_AT, {"position": position}).fetchone()
        return None if row is None else row["recorded_at"]

    def version_at(self, attempt_id: str, position: int) -> int:
        """The version of an attempt's last event at or below a settled position. Raises
        `UnknownAttempt`, and `InvalidInput` where the attempt had no event yet."""
        places = {"attempt_id": attempt_id, "position": position}
        with self._database.cursor() as cursor:
            row = one(cursor.execute(VERSION_AT, places))
        if row["first_position"] is None:
            raise UnknownAttempt(attempt_id)
        if row["version"] is None:
            raise inputs.refused(
                f"a position of attempt {attempt_id!r}",
                f"{position}, where it had no event yet",
                f"{row['first_position']}, that of its first event, or a higher one",
                "choose one that its history shows",
            )
        version: int = row["version"]
        return version

    def _at_time(self, moment: datetime) -> int:
        """Most times are long past, so the moments projection suffices to find them."""
        found = self._last_before(moment, self._settled.followed())
        if not found["is_passed"]:
            found = self._last_before(moment, self._settled.reach(self._reader.last_position()))
        position: int = found["position"]
        return position

    def _require(self, position: int) -> None:
        if position <= self._settled.followed():
            return
        last = self._reader.last_position()
        if position > last:
            raise inputs.refused(
                "a position",
                str(position),
                f"at most {last}, the last one in the log",
                "choose one that the log shows",
            )
        if self._settled.reach(position) < position:
            raise StoreBusy(
                f"read as of position {position}: events below it are being appended",
                limit=f"{SETTLING_S:g} s",
            )

    def _last_before(self, moment: datetime, upto: int) -> DictRow:
        wanted = {"moment": moment, "upto": upto}
        with translating_read_errors(MOMENTS), self._database.cursor() as cursor:
            return one(cursor.execute(LAST_BEFORE, wanted, prepare=True))
