"""The library's application recorder, without its table lock and its notifications."""

from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    InterfaceError,
    Notification,
    OperationalError,
    StoredEvent,
)
from eventsourcing.postgres import PostgresApplicationRecorder
from eventsourcing.utils import retry
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.log.datastore import JournalDatastore, library_error, library_errors
from recovery_journal.log.reader import SettledReader
from recovery_journal.log.subscription import PollingSubscription

TABLE: Final = "journal_events"
LAST_VERSION: Final = 2**63 - 1

INSERT_ONE = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""

# Rows are inserted, and so numbered, in the order of the arrays.
INSERT_MANY = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
RETURNING notification_id
"""

SELECT_FORWARD = b"""
SELECT originator_id, originator_version, topic, state
FROM journal_events
WHERE originator_id = %(stream)s
    AND originator_version > %(gt)s
    AND originator_version <= %(lte)s
ORDER BY originator_version
LIMIT %(limit)s
"""

SELECT_BACKWARD = b"""
SELECT originator_id, originator_version, topic, state
FROM journal_events
WHERE originator_id = %(stream)s
    AND originator_version > %(gt)s
    AND originator_version <= %(lte)s
ORDER BY originator_version DESC
LIMIT %(limit)s
"""

MAX_POSITION = b"SELECT max(notification_id) AS position FROM journal_events"


class JournalRecorder(PostgresApplicationRecorder):
    """Appends with a plain INSERT, and reads only what is settled.

    An insert is never repeated here after a lost connection, because its commit is unknown: that
    raises the library's `OperationalError`, and the caller decides by event id. Reads are repeated
    once: a connection that broke while idle fails at its next use.
    """

    datastore: JournalDatastore

    def __init__(self, datastore: JournalDatastore, *, events_table_name: str = TABLE) -> None:
        assert events_table_name == TABLE, f"the log is {TABLE}, not {events_table_name}"
        super().__init__(datastore, events_table_name=events_table_name)
        self.reader = SettledReader(datastore.database)

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
        try:  # and no context managers: every event passes through here
            own = self.datastore.database
            connection = own.connection() if cursor is None else cursor.connection
            return _insert(connection, stored_events)
        except (psycopg.Error, ServerUnavailable) as error:
            raise library_error(error) from error

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
        statement = SELECT_BACKWARD if desc else SELECT_FORWARD
        with self.datastore.get_connection() as connection:
            rows = connection.execute(statement, wanted, prepare=True).fetchall()
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
        with library_errors():
            while read := self.reader.rows(after, limit, stop=stop, topics=topics):
                rows = [row for row in read if row.is_of_an_attempt]
                if rows:
                    break
                after = read[-1].position
        return [
            Notification(
                id=row.position,
                originator_id=row.stream,
                originator_version=row.version,
                topic=row.tag,
                state=row.state,
            )
            for row in (rows if read else ())
        ]

    @retry((InterfaceError, OperationalError), max_attempts=2)
    def max_notification_id(self) -> int | None:
        """The highest visible position, settled or not."""
        with self.datastore.get_connection() as connection:
            row = connection.execute(MAX_POSITION, prepare=True).fetchone()
        assert row is not None
        return cast("int | None", row["position"])

    def subscribe(
        self,
        gt: int | None = None,
        topics: Sequence[str] = (),
        *,
        timeout_s: float | None = None,
    ) -> PollingSubscription:
        """Settled events as they are appended, found by polling, until it is stopped - or, with a
        timeout, until none came for that long."""
        return PollingSubscription(self, gt=gt, topics=topics, timeout_s=timeout_s)


def _insert(connection: Connection[DictRow], stored_events: Sequence[StoredEvent]) -> list[int]:
    cursor = connection.cursor(row_factory=tuple_row)
    if len(stored_events) == 1:
        event = stored_events[0]
        values = (event.originator_id, event.originator_version, event.topic, event.state)
        cursor.execute(INSERT_ONE, values, prepare=True)
    else:
        cursor.execute(INSERT_MANY, columns(stored_events), prepare=True)
    return [position for (position,) in cursor.fetchall()]


def columns(stored_events: Sequence[StoredEvent]) -> tuple[list[Any], ...]:
    """Events as one array for each column that a writer may set."""
    return (
        [event.originator_id for event in stored_events],
        [event.originator_version for event in stored_events],
        [event.topic for event in stored_events],
        [event.state for event in stored_events],
    )
