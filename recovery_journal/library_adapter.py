"""The eventsourcing library's contracts over the journal's log and positions.

The log is the journal's own; nothing in it needs the library. For programs that are written
against the library, this module offers a mapper, an application recorder and a tracking recorder,
which the library's conformance suites test, and a repository of attempts.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from eventsourcing import persistence
from eventsourcing.application import Repository
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    ApplicationRecorder,
    EventStore,
    IntegrityError,
    InterfaceError,
    JSONTranscoder,
    Mapper,
    Notification,
    OperationalError,
    PersistenceError,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
    WaitInterruptedError,
)
from eventsourcing.utils import retry
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL

from recovery_journal.domain.errors import PositionNotReached, ServerUnavailable
from recovery_journal.domain.events import AnyEvent, RecoveryEvent, tag_of
from recovery_journal.log.mapper import decode, encode
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.process.back_off import FOLLOWING, BackOff
from recovery_journal.read_models.following.tracking import ProjectionTracking

LAST_VERSION: Final = 2**63 - 1
PAGE_LIMIT: Final = 500

# Rows are inserted, and so numbered, in the order of the arrays.
INSERT: Final = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
RETURNING notification_id AS position
"""

SELECT: Final = """
SELECT originator_id, originator_version, topic, state
FROM journal_events
WHERE originator_id = %(stream)s
    AND originator_version > %(gt)s
    AND originator_version <= %(lte)s
ORDER BY originator_version {direction}
LIMIT %(limit)s
"""

TRACK: Final = """
INSERT INTO projection_tracking AS tracking (projection, position)
VALUES (%(projection)s, %(position)s)
ON CONFLICT (projection) DO UPDATE
SET position = EXCLUDED.position, changed_at = clock_timestamp()
WHERE tracking.position < EXCLUDED.position
"""


def repository(database: Database) -> Repository[str]:
    """The library's repository over the log: `get(attempt_id, projector_func=project)` returns the
    `Recovery`, where `project` is that of `domain.recovery`."""
    mapper = LibraryMapper(JSONTranscoder())
    return Repository(EventStore(mapper, LibraryRecorder(database)))


class LibraryMapper(Mapper[str]):
    """The library's mapper with our tags as topics and msgspec's JSON as state."""

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        """The event as it is appended."""
        assert isinstance(domain_event, RecoveryEvent), domain_event
        return StoredEvent(
            originator_id=domain_event.originator_id,
            originator_version=domain_event.originator_version,
            topic=tag_of(domain_event),
            state=encode(domain_event),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> AnyEvent:
        """The event as it was appended. Raises `UnknownEvent`, `CorruptEvent`."""
        return decode(
            stream=str(stored_event.originator_id),
            version=stored_event.originator_version,
            tag=stored_event.topic,
            state=stored_event.state,
            position=stored_event.id if isinstance(stored_event, Notification) else None,
        )


class LibraryRecorder(ApplicationRecorder):
    """Appends with a plain INSERT, and reads in the log's order only what is settled.

    An insert is not repeated after a lost connection, because its commit is unknown: that raises
    the library's `OperationalError`. Reads are repeated once: a connection that broke while idle
    fails at its next use.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._reader = SettledReader(database)

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        cursor: Cursor[DictRow] | None = None,
        **_: Any,
    ) -> Sequence[int] | None:
        """Append all or none; return their positions. With a cursor they commit in its transaction.

        Raises the library's errors: `IntegrityError` for a version that is stored already, or one
        without its predecessor.
        """
        if not stored_events:
            return None
        columns = (
            [str(event.originator_id) for event in stored_events],
            [event.originator_version for event in stored_events],
            [event.topic for event in stored_events],
            [event.state for event in stored_events],
        )
        with library_errors():
            connection = self._database.connection() if cursor is None else cursor.connection
            rows = connection.execute(INSERT, columns, prepare=True).fetchall()
        return [row["position"] for row in rows]

    @retry((InterfaceError, OperationalError), max_attempts=2)
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of one stream."""
        wanted = {
            "stream": originator_id,
            "gt": -1 if gt is None else gt,
            "lte": LAST_VERSION if lte is None else lte,
            "limit": limit,
        }
        statement = SQL(SELECT).format(direction=SQL("DESC" if desc else "ASC"))
        with library_errors():
            rows = self._database.connection().execute(statement, wanted, prepare=True).fetchall()
        return [StoredEvent(**row) for row in rows]

    @retry((InterfaceError, OperationalError), max_attempts=2)
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Settled events of attempts in the log's order, without those that are skipped. `start`
        must itself be settled, or a beginning.

        At a gap that may still be filled, the result is what comes before it.
        """
        after = (start or 0) - (1 if inclusive_of_start and start else 0)
        found: list[Notification] = []
        with library_errors():
            while not found and (rows := self._reader.rows(after, limit, stop=stop, topics=topics)):
                found = [
                    Notification(row.stream, row.version, row.tag, row.state, row.position)
                    for row in rows
                    if row.is_of_an_attempt
                ]
                after = rows[-1].position
        return found

    @retry((InterfaceError, OperationalError), max_attempts=2)
    def max_notification_id(self) -> int | None:
        """The highest visible position, settled or not."""
        with library_errors():
            return self._reader.last_position() or None

    def subscribe(
        self,
        gt: int | None = None,
        topics: Sequence[str] = (),
        *,
        timeout_s: float | None = None,
    ) -> "PollingSubscription":
        """Settled events as they are appended, found by polling, until it is stopped - or, with a
        timeout, until none came for that long."""
        return PollingSubscription(self, gt=gt, topics=topics, timeout_s=timeout_s)


class PollingSubscription(Subscription[LibraryRecorder]):
    """Settled events after a position, as they are appended, until `stop` - or, with `timeout_s`,
    until none came for that long. It polls, because a transaction that appends sends nothing.

    The pause between two polls doubles while no event comes. `stop` is callable from any thread.
    """

    def __init__(
        self,
        recorder: LibraryRecorder,
        gt: int | None = None,
        topics: Sequence[str] = (),
        *,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._stopped = threading.Event()
        self._waiting: deque[Notification] = deque()
        self._position = gt or 0
        self._timeout_s = timeout_s

    def stop(self) -> None:
        """End the iteration, also during a wait."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> Notification:
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        back_off = BackOff(*FOLLOWING)
        while not self._stopped.is_set():
            if self._waiting:
                return self._waiting.popleft()
            if self._poll():
                continue
            if deadline is not None and time.monotonic() >= deadline:
                break
            self._stopped.wait(back_off.pause_s())
        raise StopIteration

    def _poll(self) -> bool:
        """Fetch a page; return whether there was one. The position is the end of the examined
        range, not the last event that matches: otherwise every poll would read the same events
        again."""
        page = self._recorder.select_notifications(
            self._position, PAGE_LIMIT, inclusive_of_start=False
        )
        if page:
            self._position = page[-1].id
        self._waiting.extend(it for it in page if not self._topics or it.topic in self._topics)
        return bool(page)


class LibraryTracking(TrackingRecorder):
    """The positions of projections. The library calls what is tracked an application and its
    position a notification id."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._tracking = ProjectionTracking(database)

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record a position that is greater than the recorded one, else `IntegrityError`."""
        place = {"projection": tracking.application_name, "position": tracking.notification_id}
        with self._database.cursor() as cursor:
            if not cursor.execute(TRACK, place).rowcount:
                raise IntegrityError(
                    f"cannot track position {tracking.notification_id} of projection "
                    f"{tracking.application_name!r}: found it there or further, needed a lower one"
                )

    def max_tracking_id(self, application_name: str) -> int | None:
        """The projection's position; None where it is not known."""
        followed = self._tracking.find(application_name)
        return None if followed is None else followed.position

    def wait(
        self,
        application_name: str,
        notification_id: int | None,
        timeout: float = 1.0,
        interrupt: threading.Event | None = None,
    ) -> None:
        """Return once the projection has reached the position.

        Raises `PositionNotReached` (also a TimeoutError) after `timeout` seconds, and the library's
        WaitInterruptedError as soon as `interrupt` is set.
        """
        deadline = time.monotonic() + timeout
        back_off = BackOff(*FOLLOWING)
        interrupt = interrupt or threading.Event()
        while not self.has_tracking_id(application_name, notification_id):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                followed = self._tracking.find(application_name)
                raise PositionNotReached(
                    application_name,
                    found=followed.position if followed else 0,
                    needed=notification_id or 0,
                    timeout_s=timeout,
                    do=f"it stopped: {followed.error}" if followed and followed.error else "",
                )
            if interrupt.wait(min(back_off.pause_s(), left_s)):
                raise WaitInterruptedError


@contextmanager
def library_errors() -> Iterator[None]:
    """Raise the library's errors in place of psycopg's."""
    try:
        yield
    except ServerUnavailable as error:
        raise OperationalError(str(error)) from error
    except psycopg.Error as error:
        raise _counterpart(type(error))(str(error)) from error


def _counterpart(kind: type[psycopg.Error]) -> type[PersistenceError]:
    """The library names its errors as psycopg does: by Python's database API."""
    for parent in kind.__mro__:
        found = getattr(persistence, parent.__name__, None)
        if isinstance(found, type) and issubclass(found, PersistenceError):
            return found
    return PersistenceError
