"""The session lock of a worker: its end is evidence of the worker's death.

The server drops an advisory lock with the session that holds it, milliseconds after the process is
gone. The lock is held in a connection of its own, because other connections belong to threads,
which begin and end. Each session draws a new number, which the worker declares with its heartbeats:
so a lock whose connection was cut proves nothing any more as soon as a living worker has declared
the next one, or none.

On the same connection the worker receives the notifications that attempts have become ready.

Any role that may connect to the database may take advisory locks and send notifications. So the
numbers are random, so that none can be held before it is drawn; and a session whose channel is
flooded is replaced by one that does not listen. The old session is closed only when no lease names
its number any more: otherwise a living worker would seem dead.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.back_off import BackOff
from recovery_journal.process.forks import leave_in_children
from recovery_journal.store.ready_notice import AWAKE, FALL_ASLEEP, ReadyNotice, listen
from recovery_journal.worker.ready_listener import FLOOD_COUNT, FLOOD_WINDOW_S, ReadyListener

CONNECT_S: Final = 2  # the shortest that libpq accepts
SHORTEST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
DRAW_LIMIT: Final = 8
LARGEST_NUMBER: Final = 2**31 - 1

# The sequence's own number in the upper half separates the locks of one schema from all others.
ACQUIRE_LOCK = """
SELECT pg_try_advisory_lock(('session_locks'::regclass::oid::bigint << 32) | %(number)s)
    AS is_held
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

ALL_HELD: Final = (
    f"cannot take a session lock now: found {DRAW_LIMIT} numbers drawn at random all held by other "
    "sessions, needed a free one; see pg_locks for who holds so many, it is tried again"
)
FLOODED: Final = (
    f"cannot listen for ready attempts: found more than {FLOOD_COUNT:,} notifications within "
    f"{FLOOD_WINDOW_S:g} s on this journal's channel, needed fewer; it polls, and listens again "
    "in {pause_s:g} s"
)

POOLED: Final = (
    "cannot hold a session lock: found a connection pooler before the server, needed a direct "
    "connection; this worker's death will be noticed by the TTL of its leases"
)


class SessionLock:
    """Takes the lock, detects its loss, takes another one on request, and receives notifications.

    For one thread at a time; a second one is turned away. A forked child never has the lock: a
    process that keeps the socket open keeps the lock, and may outlive the worker.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection[DictRow] | None = None
        self._file: int | None = None
        self._use = threading.Lock()
        self._back_off = BackOff(SHORTEST_PAUSE_S, LONGEST_PAUSE_S)
        self._next_try_at = time.monotonic()
        self._is_pooled = False
        self._problems: deque[str] = deque()
        self._last_problem = ""
        self._listener = ReadyListener()
        self._is_listening = False
        self._abandoned: Connection[DictRow] | None = None
        self._is_asleep = False
        self.number: int | None = None
        leave_in_children(self)

    @property
    def file(self) -> int | None:
        """The file that becomes readable when the lock is lost or a notification has arrived, for
        callers that wait for other files too."""
        return self._file

    @property
    def is_listening(self) -> bool:
        """Whether notifications are received at all."""
        return self._is_listening

    @property
    def is_due(self) -> bool:
        """Whether there is no lock, one could be had, and it is time to try."""
        is_missing = self.number is None and not self._is_pooled
        return is_missing and time.monotonic() >= self._next_try_at

    def take(self) -> bool:
        """Take a lock if there is none and it is time to try; return whether a new one was taken.

        A failure is reported by `problems` and retried with back-off.
        """
        if not self.is_due or not self._use.acquire(blocking=False):
            return False
        try:
            self._take()
            self._listen()
        except (RecoveryJournalError, psycopg.Error) as error:
            self._put_off(f"cannot take a session lock now: {type(error).__name__}: {error}")
        finally:
            self._use.release()
        return self.number is not None

    def listen_again(self) -> bool:
        """Listen again where the last flood is long enough ago; return whether the connection
        turned out to be lost."""
        if self._is_listening or self._listener.is_paused:
            return False
        return self._is_lost_by(self._listen)

    def is_lost(self) -> bool:
        """Read some of what has arrived; return whether the lock has just been lost: with its
        connection, or because that connection was abandoned to a flood."""
        return self._connection is not None and self._is_lost_by(self._read)

    def take_notice(self) -> ReadyNotice | None:
        """The last notification that `is_lost` has read since the previous call, if there was
        one."""
        return self._listener.take_notice()

    def settle(self) -> None:
        """Close the session that was abandoned to a flood, if there is one: no lease names its
        number any more."""
        if self._abandoned is not None and self._use.acquire(blocking=False):
            self._close_abandoned()
            self._use.release()

    @property
    def is_asleep(self) -> bool:
        """Whether this worker counts as asleep: not every notification has to wake it."""
        return self._is_asleep

    def sleep(self, *, is_asleep: bool) -> bool:
        """Count this worker as asleep, or as awake; return whether the connection turned out to be
        lost.

        A worker without a session cannot be counted, and a worker that is not counted wakes at
        every notification. So does one whose count another session prevents, by holding the lock.
        """
        if is_asleep == self._is_asleep:
            return False
        return self._is_lost_by(lambda: self._count(is_asleep=is_asleep))

    def problems(self) -> list[str]:
        """The problems since the last call."""
        return [self._problems.popleft() for _ in range(len(self._problems))]

    def close(self) -> None:
        """Release the lock. The leases that name it should have ended before.

        Where another thread still waits for the server on this connection, the end of the process
        closes it.
        """
        if self._use.acquire(timeout=CONNECT_S):
            self._drop()
            self._close_abandoned()
            self._use.release()

    def leave(self) -> None:
        """In a forked child: have no lock; the database has released the sockets."""
        self.number = self._file = None
        self._is_asleep = self._is_listening = False

    def _is_lost_by(self, action: Callable[[], object]) -> bool:
        """Use the connection, unless another thread does; return whether the lock has been lost
        meanwhile."""
        if not self._use.acquire(blocking=False):
            return False
        is_held = self._connection is not None
        try:
            action()
        except psycopg.Error as error:
            self._report(f"lost the session lock: {' '.join(str(error).split())}")
            self._drop()
            return True
        finally:
            self._use.release()
        return is_held and self._connection is None

    def _read(self) -> None:
        if self._connection is not None:
            self._listener.read(self._connection)
            if self._listener.is_flooded:
                self._leave_flood()

    def _count(self, *, is_asleep: bool) -> None:
        self._read()  # otherwise the answer comes behind all of it
        if self._connection is not None:
            statement = FALL_ASLEEP if is_asleep else AWAKE
            self._is_asleep = one(self._connection.execute(statement.encode()))["is_counted"]

    def _take(self) -> None:
        connection, is_direct = self._database.open_connection(connect_timeout=CONNECT_S)
        self._connection = connection
        number = _draw(connection) if is_direct else None
        if is_direct and number is None:
            self._put_off(ALL_HELD)
            return
        if number is None or not _holds(connection, SEEN, number):
            self._is_pooled = True
            self._report(POOLED)
            self._drop()
            return
        connection.execute(NEVER_RECYCLE)
        self._file, self.number = connection.pgconn.socket, number
        self._back_off.reset()
        self._last_problem = ""

    def _listen(self) -> None:
        if self._connection is None or self._listener.is_paused:
            return
        # For a notification that arrives during a statement. psycopg's own handler would decode it,
        # and raise out of the statement where the bytes are in another encoding.
        self._connection.pgconn.notify_handler = self._listener.receive
        listen(self._connection)
        self._is_listening = True

    def _leave_flood(self) -> None:
        """Give up the lock and the connection here, but keep the old session open at the server
        until `settle`."""
        self._report(FLOODED.format(pause_s=self._listener.pause()))
        self._close_abandoned()
        self._abandoned, self._connection = self._connection, None
        self._next_try_at = time.monotonic()
        self._drop()

    def _put_off(self, problem: str) -> None:
        """Retry after a pause, with back-off."""
        self._drop()
        self._next_try_at = time.monotonic() + self._back_off.pause_s()
        self._report(problem)

    def _drop(self) -> None:
        self.number = self._file = None
        self._is_asleep = self._is_listening = False
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _close_abandoned(self) -> None:
        if self._abandoned is not None:
            with suppress(psycopg.Error):
                self._abandoned.close()
            self._abandoned = None

    def _report(self, problem: str) -> None:
        if problem != self._last_problem:
            self._last_problem = problem
            self._problems.append(problem)


def _draw(connection: Connection[DictRow]) -> int | None:
    """Take a number that no session holds; None where several drawn numbers are all held."""
    for _ in range(DRAW_LIMIT):
        number = random.randint(1, LARGEST_NUMBER)  # noqa: S311 - held only by accident, which is noticed
        if _holds(connection, ACQUIRE_LOCK, number):
            return number
    return None


def _holds(connection: Connection[DictRow], statement: str, number: int) -> bool:
    return bool(one(connection.execute(statement.encode(), {"number": number}))["is_held"])
