"""The session lock of a worker: its end is the worker's death.

The server drops an advisory lock with the session that holds it, milliseconds after the process is
gone. It is held in a connection of its own, because the others come and go with threads. Each
session draws a new number, which the worker declares with its heartbeats: so a lock whose
connection was cut says nothing any more as soon as a living worker has declared the next one, or
none.

In the same connection the worker hears the calls that attempts have become ready.
"""

import os
import select
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from domain.errors import RecoveryJournalError
from recovery_journal.forks import leave_in_children
from recovery_journal.leases.ready_call import AWAKE, FALL_ASLEEP, Call, listen
from recovery_journal.pauses import spread
from recovery_journal.postgres.database import Database

CONNECT_S: Final = 2  # the shortest that libpq knows
SHORTEST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0

# The sequence's own number in the upper half tells the locks of one schema from all others.
TAKE = """
SELECT number, pg_try_advisory_lock((family << 32) | number) AS is_taken
FROM (SELECT 'session_locks'::regclass::oid::bigint AS family, nextval('session_locks') AS number)
    AS drawn
"""

# In another transaction: a pooler may have lent another backend for it.
SEEN = """
SELECT EXISTS (
    SELECT
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND classid = 'session_locks'::regclass
        AND objid::bigint = %(number)s
        AND objsubid = 1
        AND pid = pg_backend_pid()
        AND granted
) AS is_held
"""

# It is idle on purpose.
NEVER_RECYCLE = "SET idle_session_timeout = 0"

POOLED: Final = (
    "cannot hold a session lock: found a connection pooler before the server, needed a direct "
    "connection; this worker's death will be noticed by the TTL of its leases"
)

# A fork's copies of its parent's: forgetting one would run psycopg's finalizer, which complains.
_INHERITED: list[Connection[DictRow]] = []


class SessionLock:
    """Takes the lock, notices that it was lost, takes another one when it is asked to, and hears.

    For one thread at a time; of two, one is turned away. A forked child never has it: whoever
    keeps the socket open keeps the lock, and may outlive the worker.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection[DictRow] | None = None
        self._file: int | None = None
        self._use = threading.Lock()
        self._pause_s = SHORTEST_PAUSE_S
        self._next_try_at = time.monotonic()
        self._is_pooled = False
        self._problems: SimpleQueue[str] = SimpleQueue()
        self._last_problem = ""
        self._call: Call | None = None
        self._is_asleep = False
        self.number: int | None = None
        leave_in_children(self)

    @property
    def file(self) -> int | None:
        """What becomes readable when the lock is lost or a call has come, for whoever waits for
        other files too."""
        return self._file

    @property
    def is_due(self) -> bool:
        """Whether there is none, one could be had, and it is time to try."""
        is_missing = self.number is None and not self._is_pooled
        return is_missing and time.monotonic() >= self._next_try_at

    def take(self) -> bool:
        """Take a lock if there is none and it is time to try; whether a new one was taken.

        Where it cannot be had, that is told by `problems` and tried again after growing pauses.
        """
        if not self.is_due or not self._use.acquire(blocking=False):
            return False
        try:
            self._take()
        except (RecoveryJournalError, psycopg.Error) as error:
            self._drop()
            self._next_try_at = time.monotonic() + spread(self._pause_s)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            self._tell(f"cannot take a session lock now: {type(error).__name__}: {error}")
        finally:
            self._use.release()
        return self.number is not None

    def is_lost(self) -> bool:
        """Read what has arrived; whether the connection, and with it the lock, has just gone."""
        if self._connection is None or not self._use.acquire(blocking=False):
            return False
        try:
            while self._has_more():
                self._connection.pgconn.consume_input()
                while notice := self._connection.pgconn.notifies():
                    self._hear(notice.extra.decode())
            return False
        except psycopg.Error as error:
            self._lose(error)
            return True
        finally:
            self._use.release()

    def heard(self) -> Call | None:
        """The last call that `is_lost` has read since this was asked, if there was one."""
        heard, self._call = self._call, None
        return heard

    @property
    def has_heard(self) -> bool:
        """Whether there is one."""
        return self._call is not None

    @property
    def is_asleep(self) -> bool:
        """Whether this worker is counted among those that need not all come to a call."""
        return self._is_asleep

    def sleep(self, *, is_asleep: bool) -> bool:
        """Be counted among those, or no more; whether the connection was found gone over it.

        Without a session there is nothing to be counted by, and a worker that is not counted comes
        to every call.
        """
        if is_asleep == self._is_asleep or not self._use.acquire(blocking=False):
            return False
        try:
            if self._connection is not None:
                self._connection.execute(FALL_ASLEEP if is_asleep else AWAKE)
                self._is_asleep = is_asleep
            return False
        except psycopg.Error as error:
            self._lose(error)
            return True
        finally:
            self._use.release()

    def problems(self) -> list[str]:
        """What went wrong since the last time this was asked."""
        found = []
        while True:
            try:
                found.append(self._problems.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        """Give the lock back. The leases that it stood for should have ended before.

        Where another thread still waits for the server over it, the end of the process will do.
        """
        if self._use.acquire(timeout=CONNECT_S):
            self._drop()
            self._use.release()

    def leave(self) -> None:
        """In a forked child: let go of the socket without a word to the server. Its number goes to
        something harmless, lest another file gets it while libpq still thinks it is its own."""
        if self._connection is None or self._file is None or self._connection.closed:
            return  # libpq has closed it, perhaps unnoticed: its number may be another file's now
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, self._file, inheritable=False)
        os.close(nothing)
        _INHERITED.append(self._connection)
        self._connection = self._file = self.number = None
        self._is_asleep = False

    def _take(self) -> None:
        connection, is_direct = self._database.open_connection(connect_timeout=CONNECT_S)
        self._connection = connection
        row = _one(connection, TAKE) if is_direct else {"number": 0, "is_taken": False}
        if not row["is_taken"] or not _one(connection, SEEN, number=row["number"])["is_held"]:
            self._is_pooled = True
            self._tell(POOLED)
            self._drop()
            return
        connection.execute(NEVER_RECYCLE)
        # One that comes while a statement is under way is psycopg's to pass on.
        connection.add_notify_handler(lambda notice: self._hear(notice.payload))
        listen(connection)
        self._file, self.number = connection.pgconn.socket, row["number"]
        self._pause_s = SHORTEST_PAUSE_S
        self._last_problem = ""

    def _hear(self, payload: str) -> None:
        self._call = Call.read(payload)

    def _has_more(self) -> bool:
        """Whether the socket is readable: after a last word there is still its end to read."""
        return bool(self._file is not None and select.select([self._file], [], [], 0)[0])

    def _lose(self, error: psycopg.Error) -> None:
        self._tell(f"lost the session lock: {' '.join(str(error).split())}")
        self._drop()

    def _drop(self) -> None:
        self.number = None
        self._is_asleep = False
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = self._file = None

    def _tell(self, problem: str) -> None:
        if problem != self._last_problem:
            self._last_problem = problem
            self._problems.put(problem)


def _one(connection: Connection[DictRow], statement: str, **values: Any) -> DictRow:
    row = connection.execute(statement.encode(), values or None).fetchone()
    assert row is not None
    return row
