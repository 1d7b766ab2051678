"""Reads the log in its one order without missing an event (rule R3).

A position is drawn at INSERT and its event becomes visible at COMMIT, so an event may appear below
one that was read already. A transaction that draws a position holds the table's RowExclusiveLock
from before the draw to its end. So once a position P is visible, everything below it that will ever
appear belongs to a transaction that holds this lock now: when all that hold it have ended,
everything at or below P is settled, and what is missing is missing for good.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Cursor
from psycopg.rows import DictRow, args_row

from recovery_journal.domain.errors import ReadOnlyServer, TailLost
from recovery_journal.log.numbers import Skipped, skipped_positions
from recovery_journal.log.rows import COLUMNS, Row, decode_rows
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.back_off import BRIEF, BackOff
from recovery_journal.projections.projection import Record

GAP_WAIT_S: Final = 0.25
CONTIGUOUS_LIMIT: Final = 10_000
LAST_POSITION: Final = 2**63 - 1

PAGE = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE notification_id > %(after)s
    AND notification_id <= %(stop)s
ORDER BY notification_id
LIMIT %(limit)s
"""

PAGE_OF_TAGS = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE notification_id > %(after)s
    AND notification_id <= %(stop)s
    AND topic = ANY(%(tags)s)
ORDER BY notification_id
LIMIT %(limit)s
"""

LAST = b"SELECT coalesce(max(notification_id), 0) AS position FROM journal_events"

# A prepared transaction has no process, and another name than it had before it was prepared.
WRITERS = b"""
SELECT DISTINCT virtualtransaction AS writer, pid IS NULL AS is_prepared
FROM pg_locks
WHERE locktype = 'relation'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation = to_regclass('journal_events')
    AND mode = 'RowExclusiveLock'
    AND granted
"""

CONTIGUOUS = b"""
SELECT coalesce(max(position), %(mark)s) AS position
FROM (
    SELECT notification_id AS position, row_number() OVER (ORDER BY notification_id) AS nth
    FROM journal_events
    WHERE notification_id > %(mark)s
    ORDER BY notification_id
    LIMIT %(limit)s
) AS following
WHERE position = %(mark)s + nth
"""

IS_STANDBY = b"SELECT pg_is_in_recovery() AS is_standby"


class Page(NamedTuple):
    """Settled events in order. Nothing can appear any more at or below `settled`, the position from
    which to read on."""

    records: list[Record]
    settled: int


class _Watch(NamedTuple):
    """A position that was visible, and the writers that may still fill a gap below it."""

    position: int
    writers: frozenset[str]


class SettledReader:
    """Reads settled events. Thread-safe: what one thread finds settled, all know.

    It must not read in a transaction that has appended events itself. A writer that idles in its
    transaction delays readers, which is why every session limits that, but makes them miss nothing.
    """

    def __init__(self, database: Database, *, gap_wait_s: float = GAP_WAIT_S) -> None:
        self._database = database
        self._gap_wait_s = gap_wait_s
        self._gate = threading.Lock()
        self._mark = 0
        self._watch: _Watch | None = None
        self._primaries: set[int] = set()
        self._skipped: tuple[Skipped, ...] = ()

    def read(self, after: int, limit: int) -> Page:
        """Up to `limit` events after a settled position (0 is the beginning), without those of the
        journal's own stream and those that are skipped.

        Waits briefly at a gap that may still be filled, then returns the events before it. The page
        ends before an event that cannot be decoded, whose error is raised only when it comes first.
        Raises `TailLost`, `UnknownEvent`, `CorruptEvent`, `ReadOnlyServer`, `ServerUnavailable`.
        """
        rows = self.rows(after, limit)
        if not rows:
            self._require_tail(after)
        wanted = [row for row in rows if row.is_of_an_attempt]
        records, error = decode_rows(wanted)
        if error is None:
            return Page(records, settled=rows[-1].position if rows else after)
        if not records:
            raise error
        unreadable = wanted[len(records)].position
        before = [row.position for row in rows if row.position < unreadable]
        return Page(records, settled=before[-1] if before else after)

    def rows(
        self, after: int, limit: int, *, stop: int | None = None, topics: Sequence[str] = ()
    ) -> list[Row]:
        """As `read`, but not decoded; up to `stop`, and of these tags only."""
        stop = LAST_POSITION if stop is None else stop
        wanted = {"after": after, "limit": limit, "stop": stop, "tags": list(topics)}
        self._require_primary()
        self._require_log_of(after)
        if topics:
            wanted["stop"] = min(stop, self.settled_position())
            return self._rows(PAGE_OF_TAGS, wanted)
        return self._settled_rows(wanted)

    def settled_position(self) -> int:
        """The watermark: the highest position known to be settled, after one check. Never waits."""
        self._require_primary()
        with self._database.cursor() as cursor:
            is_at_head = self._look(cursor)
            mark = self._mark
            if is_at_head:
                return mark
            limits = {"mark": mark, "limit": CONTIGUOUS_LIMIT}
            return _position(cursor.execute(CONTIGUOUS, limits, prepare=True))

    def last_position(self) -> int:
        """The highest visible position, settled or not; 0 in an empty log."""
        with self._database.cursor() as cursor:
            return _position(cursor.execute(LAST, prepare=True))

    def _settled_rows(self, wanted: dict[str, Any]) -> list[Row]:
        give_up_at = time.monotonic() + self._gap_wait_s
        back_off = BackOff(*BRIEF)
        while True:
            # Before the page's snapshot: what was settled by then is in the page.
            mark = self._mark
            page = self._rows(PAGE, wanted)
            safe = _safe_prefix(page, wanted["after"], mark)
            if len(safe) == len(page):
                return page
            with self._database.cursor() as cursor:
                self._look(cursor)
            if self._mark != mark:
                continue
            if safe or time.monotonic() >= give_up_at:
                return safe
            time.sleep(back_off.pause_s())

    def _look(self, cursor: Cursor[DictRow]) -> bool:
        """Settle what can be settled now; return whether that is everything that is visible.

        The writers of a gap are remembered until they ended, and not queried again: otherwise new
        ones would block a reader for ever.
        """
        with self._gate:
            if self._watch is not None:
                if _writers(cursor, of=self._watch.writers):
                    return False
                self._mark, self._watch = self._watch.position, None
            # In this order: the writers of a gap below a visible position have their locks.
            last = _position(cursor.execute(LAST, prepare=True))
            if last < self._mark:
                raise TailLost(reader="a reader", found=self._mark, last=last)
            if last > self._mark:
                writers = _writers(cursor)
                if writers:
                    self._watch = _Watch(last, writers)
                    return False
                self._mark = last
            return True

    def _rows(self, statement: str, wanted: dict[str, Any]) -> list[Row]:
        with self._database.translated():
            connection = self._database.connection()
            with connection.cursor(binary=True, row_factory=args_row(Row)) as cursor:
                return cursor.execute(statement, wanted, prepare=True).fetchall()

    def _require_tail(self, after: int) -> None:
        last = self.last_position()
        if after > last:
            raise TailLost(reader="a reader", found=after, last=last)

    def _require_primary(self) -> None:
        session_no = self._database.session_no()
        if session_no in self._primaries:
            return
        with self._database.cursor() as cursor:
            row = cursor.execute(IS_STANDBY).fetchone()
            if row is not None and row["is_standby"]:
                raise ReadOnlyServer("read settled events")
            skipped = skipped_positions(cursor)
        self._primaries.add(session_no)
        with self._gate:
            if self._skipped != skipped:  # what was settled before a restore may be lost since
                self._skipped, self._mark, self._watch = skipped, 0, None

    def _require_log_of(self, after: int) -> None:
        """No event of this log has a skipped position: a reader at one has read an event that was
        lost. It would miss no event from there on, but it must learn of the loss."""
        if self._skipped_around(after) is None:
            return
        with self._database.cursor() as cursor:  # by now a range may begin later
            self._skipped = skipped_positions(cursor)
        if skipped := self._skipped_around(after):
            raise TailLost(reader="a reader", found=after, last=skipped.last)

    def _skipped_around(self, position: int) -> Skipped | None:
        return next((it for it in self._skipped if it.last < position <= it.skipped_to), None)


def _safe_prefix(page: list[Row], after: int, mark: int) -> list[Row]:
    """The rows before the first gap above the mark."""
    before = after
    for index, row in enumerate(page):
        if row.position > before + 1 and row.position > mark + 1:
            return page[:index]
        before = row.position
    return page


def _writers(cursor: Cursor[DictRow], *, of: frozenset[str] | None = None) -> frozenset[str]:
    """The transactions that have appended and not ended; `of` these, and any that is prepared."""
    rows = cursor.execute(WRITERS, prepare=True).fetchall()
    return frozenset(
        row["writer"] for row in rows if of is None or row["is_prepared"] or row["writer"] in of
    )


def _position(cursor: Cursor[DictRow]) -> int:
    position: int = one(cursor)["position"]
    return position
