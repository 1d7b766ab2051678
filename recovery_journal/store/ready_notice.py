"""The call that attempts have become ready, for workers that wait.

It is a notification in a transaction of its own: PostgreSQL lets only one transaction that notifies
commit at a time, which would queue up appends behind each other. Polling remains the truth, so a
call that is lost costs nothing but time.

A call is heard by everybody, and a fleet of a thousand idle workers must not come running for one
attempt. So it says how many attempts are ready and how many workers are asleep, and of those only
some come, each by its own lot. Who has had work a moment ago is not asleep yet, and always comes.

Any role that may connect to the database may send notifications on the channel, and hold the
advisory lock of the sleepers. So a call is a hint: `ReadyNotice.read` accepts any text, no call
makes a worker wait longer than its ordinary pause, and a lock that another session holds is not
waited for.
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
from recovery_journal.postgres.database import Database

COMERS_PER_ATTEMPT: Final = 2
MORE_COMERS: Final = 8
"""Lots may fall on few, and some of those may want other kinds. Of eight to be expected, none comes
in one call of three thousand; then the next one to look by itself finds the attempt."""
AT_ONCE: Final = 16
SPREAD_S: Final = 0.001
"""If more come they come one after another, about as fast as a server grants claims."""

LONGEST_TURN_S: Final = 1.0
"""Less than an ordinary pause, whatever the call says."""
NUMBERS: Final = re.compile(r"([0-9]{1,9}) ([0-9]{1,9})", re.ASCII)
"""What a payload of ours is. Nine digits are more attempts and workers than there are."""

# A channel belongs to the whole database; the number of its sequence tells one journal from others.
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

# All sleepers share one lock, and are counted by its holders. It goes with their sessions. The
# number of a sequence tells it from other locks, as it does for session locks.
FALL_ASLEEP: Final = """
SELECT pg_try_advisory_lock_shared('epochs'::regclass::oid::bigint << 32) AS is_counted
"""
AWAKE: Final = """
SELECT NOT pg_advisory_unlock_shared('epochs'::regclass::oid::bigint << 32) AS is_counted
"""


class ReadyNotice(Struct, frozen=True):
    """What a call says: how many attempts became ready, and how many workers are asleep."""

    ready_count: int
    asleep_count: int

    @classmethod
    def read(cls, payload: str) -> "ReadyNotice":
        """From a notification, whatever its text. One without two numbers is for everybody."""
        numbers = NUMBERS.fullmatch(payload)
        if numbers is None:
            return cls(ready_count=0, asleep_count=0)
        return cls(ready_count=int(numbers[1]), asleep_count=int(numbers[2]))

    @property
    def comer_count(self) -> int:
        """How many of those that are asleep should come."""
        return self.ready_count * COMERS_PER_ATTEMPT + MORE_COMERS

    def wake_delay_s(self, *, is_asleep: bool) -> float | None:
        """In how many seconds a worker that hears it should come, None if it need not."""
        if is_asleep and random.random() * self.asleep_count >= self.comer_count:  # noqa: S311 - a lot
            return None
        crowd = min(self.comer_count, self.asleep_count)
        turn_s = min(SPREAD_S * crowd, LONGEST_TURN_S)
        return random.random() * turn_s if crowd > AT_ONCE else 0.0  # noqa: S311 - likewise


def notify_ready(database: Database, ready_count: int) -> None:
    """Wake workers that wait. What they would be woken for must be committed."""
    with suppress(Retry), database.cursor() as cursor:
        cursor.execute(NOTIFY, {"ready_count": ready_count})


def listen(connection: Connection[DictRow]) -> None:
    """Hear the calls of this schema's journal in this connection from now on."""
    row = connection.execute(CHANNEL).fetchone()
    assert row is not None
    connection.execute(SQL("LISTEN {}").format(Identifier(row["name"])))
