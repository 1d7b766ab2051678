"""Notifications that have arrived in a connection: read in bounded parts, and never trusted.

Any role that may connect to the database may send them, as many as it likes.
"""

import time
from multiprocessing.connection import wait
from typing import Final

from psycopg import Connection
from psycopg.pq import PGnotify
from psycopg.rows import DictRow

from recovery_journal.store.ready_notice import ReadyNotice

READS_AT_ONCE: Final = 8  # libpq reads 16 kB or a little more at a time
FLOOD_COUNT: Final = 2_000
FLOOD_WINDOW_S: Final = 1.0
"""More notifications than this in this time are not the journal's: a cohort of attempts sends
one."""
SHORTEST_LISTENING_PAUSE_S: Final = 10.0
LONGEST_LISTENING_PAUSE_S: Final = 600.0


class ReadyListener:
    """The last notification that was received, and how many there were recently."""

    def __init__(self) -> None:
        self._call: ReadyNotice | None = None
        self._count = 0
        self._counted_since = time.monotonic()
        self._pause_s = SHORTEST_LISTENING_PAUSE_S
        self._paused_until = self._counted_since

    def receive(self, notice: PGnotify) -> None:
        """Record one notification. Its bytes may be in any encoding."""
        self._call = ReadyNotice.read(notice.extra.decode(errors="replace"))
        now = time.monotonic()
        if now - self._counted_since >= FLOOD_WINDOW_S:
            self._count, self._counted_since = 0, now
        self._count += 1

    def read(self, connection: Connection[DictRow]) -> None:
        """Read what has arrived, up to a bound. Raises psycopg's errors where the connection is
        gone: its end may follow a last notification, so it is read as well."""
        libpq = connection.pgconn
        for _ in range(READS_AT_ONCE):
            if self.is_flooded or not wait([libpq.socket], 0):
                return
            libpq.consume_input()
            while notice := libpq.notifies():
                self.receive(notice)

    def take_notice(self) -> ReadyNotice | None:
        """The last notification since the previous call, if there was one."""
        heard, self._call = self._call, None
        return heard

    @property
    def is_flooded(self) -> bool:
        """Whether so many arrive that reading them would keep a worker from its work."""
        return self._count > FLOOD_COUNT

    @property
    def is_paused(self) -> bool:
        """Whether it is too early to listen again after a flood."""
        return time.monotonic() < self._paused_until

    def pause(self) -> float:
        """Stop listening for a while, longer after each flood that follows soon; return for how
        many seconds."""
        now = time.monotonic()
        is_first = now - self._paused_until > LONGEST_LISTENING_PAUSE_S
        self._pause_s = SHORTEST_LISTENING_PAUSE_S if is_first else self._pause_s
        pause_s, self._paused_until = self._pause_s, now + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_LISTENING_PAUSE_S)
        self._call, self._count = None, 0
        return pause_s
