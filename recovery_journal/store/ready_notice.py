"""Notifies waiting workers that attempts have become ready.

A notification has a transaction of its own: PostgreSQL lets only one transaction that notifies
commit at a time, so that appends would queue behind each other. Polling remains the truth, so a
lost notification costs only time.

Every worker receives a notification, and a fleet of a thousand idle workers must not wake for one
attempt. So it carries how many attempts are ready and how many workers are asleep, and of those
only some wake, each by a random draw of its own. A worker that has just had work is not asleep yet,
and always comes.

Any role that may connect to the database may send notifications on the channel, and hold the
advisory lock of the sleepers. So a notification is a hint: `ReadyNotice.read` accepts any text, no
notification makes a worker wait longer than its ordinary pause, and no worker waits for a lock that
another session holds.
"""

import random
import re
from contextlib import suppress
from typing import Final

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from recovery_journal.domain.errors import Retry
from recovery_journal.postgres.database import Database, one

COMERS_PER_ATTEMPT: Final = 2
MORE_COMERS: Final = 8
"""The draws may select few workers, and some of those may want other kinds. With eight expected,
one notification in three thousand wakes none; then the next worker that polls finds the attempt."""
AT_ONCE: Final = 16
SPREAD_S: Final = 0.001
"""Above this number the workers are spread over time, about as fast as a server grants claims."""

LONGEST_TURN_S: Final = 1.0
"""Shorter than an ordinary pause, whatever the notification says."""
NUMBERS: Final = re.compile(r"([0-9]{1,9}) ([0-9]{1,9})", re.ASCII)
"""The form of our payloads. Nine digits are more attempts and workers than can exist."""

# A channel belongs to the whole database; the object id of this journal's sequence separates it
# from other journals.
NOTIFY: Final = """
SELECT pg_notify(
    'recovery_journal_ready_' || 'session_locks'::regclass::oid,
    %(ready_count)s || ' ' || count(DISTINCT pid)
)
FROM pg_locks
WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = 'epochs'::regclass
    AND objid = 0
    AND objsubid = 1
    AND mode = 'ShareLock'
    AND granted
"""

CHANNEL: Final = "SELECT 'recovery_journal_ready_' || 'session_locks'::regclass::oid AS name"

# All sleepers share one lock, and its holders are their count. It is released when a session ends.
# The object id of a sequence separates it from other locks, as for session locks.
FALL_ASLEEP: Final = """
SELECT pg_try_advisory_lock_shared('epochs'::regclass::oid::bigint << 32) AS is_counted
"""
AWAKE: Final = """
SELECT NOT pg_advisory_unlock_shared('epochs'::regclass::oid::bigint << 32) AS is_counted
"""


class ReadyNotice(Struct, frozen=True):
    """The content of a notification: how many attempts became ready, and how many workers are
    asleep."""

    ready_count: int
    asleep_count: int

    @classmethod
    def read(cls, payload: str) -> "ReadyNotice":
        """Parse a notification, whatever its text. One without two numbers wakes every worker."""
        numbers = NUMBERS.fullmatch(payload)
        if numbers is None:
            return cls(ready_count=0, asleep_count=0)
        return cls(ready_count=int(numbers[1]), asleep_count=int(numbers[2]))

    @property
    def comer_count(self) -> int:
        """How many of the sleeping workers should come."""
        return self.ready_count * COMERS_PER_ATTEMPT + MORE_COMERS

    def wake_delay_s(self, *, is_asleep: bool) -> float | None:
        """After how many seconds a worker that receives it should come; None if it should not."""
        if is_asleep and random.random() * self.asleep_count >= self.comer_count:  # noqa: S311 - a random draw
            return None
        crowd = min(self.comer_count, self.asleep_count)
        turn_s = min(SPREAD_S * crowd, LONGEST_TURN_S)
        return random.random() * turn_s if crowd > AT_ONCE else 0.0  # noqa: S311 - likewise


def notify_ready(database: Database, ready_count: int) -> None:
    """Wake waiting workers. The attempts for which they wake must be committed already."""
    with suppress(Retry), database.cursor() as cursor:
        cursor.execute(NOTIFY, {"ready_count": ready_count})


def listen(connection: Connection[DictRow]) -> None:
    """Receive the notifications of this schema's journal on this connection from now on."""
    row = one(connection.execute(CHANNEL))
    connection.execute(SQL("LISTEN {}").format(Identifier(row["name"])))
