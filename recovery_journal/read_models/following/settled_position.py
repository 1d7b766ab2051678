"""The settled position: nothing can appear at or below it any more."""

import time
from typing import Final

from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.back_off import BRIEF, BackOff

SETTLING_S: Final = 0.25

# Where events were lost, a projection may have followed a log that was longer than this one.
FOLLOWED: Final = """
SELECT coalesce(max(position), 0) AS position
FROM projection_tracking
WHERE position <= (SELECT coalesce(max(notification_id), 0) FROM journal_events)
"""


class SettledPosition:
    """The highest position that a reader of this process or a follower of any process has found
    settled: a reader that has just started knows little of a busy log."""

    def __init__(self, database: Database, reader: SettledReader) -> None:
        self._database = database
        self._reader = reader

    def followed(self) -> int:
        """The highest position that a projection has followed, which is settled by construction."""
        with self._database.cursor() as cursor:
            position: int = one(cursor.execute(FOLLOWED))["position"]
        return position

    def now(self) -> int:
        """The settled position, after one check. Never waits."""
        return max(self._reader.settled_position(), self.followed())

    def reach(self, needed: int) -> int:
        """The settled position, after a short wait for writers at or below `needed`."""
        deadline = time.monotonic() + SETTLING_S
        back_off = BackOff(*BRIEF)
        while (settled := self.now()) < needed and time.monotonic() < deadline:
            time.sleep(back_off.pause_s())
        return settled
