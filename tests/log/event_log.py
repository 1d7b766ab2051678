"""Streams as tests read them: each by a query of its own."""

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import StreamUnusable
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.recovery import Recovery
from recovery_journal.log.reader import SettledReader
from recovery_journal.log.streams import find, has_decision, streams
from recovery_journal.monitoring.history import History
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record


class EventLog:
    """The log of one schema."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reader = SettledReader(database)

    def recovery(self, attempt_id: str) -> Recovery:
        return History(self.database, self.reader).recovery(attempt_id, version=None)

    def load_many(self, attempt_ids: Sequence[str]) -> dict[str, list[Record] | StreamUnusable]:
        """The events of each stream, or the reason why they cannot be read."""
        found: dict[str, list[Record] | StreamUnusable] = {}
        with self.database.cursor() as cursor:
            for attempt_id, stream in streams(cursor, attempt_ids).items():
                try:
                    found[attempt_id] = stream.records()
                except StreamUnusable as error:
                    found[attempt_id] = error
        return found

    def has_decision(self, attempt_id: str, event_id: str) -> bool:
        with self.database.cursor() as cursor:
            return has_decision(cursor, attempt_id, event_id)

    def records(self, cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> list[Record]:
        """Appended events with their positions and times, in order of position."""
        found = []
        for record in find(cursor, events).values():
            assert not isinstance(record, StreamUnusable)
            found.append(record)
        return sorted(found, key=lambda record: record.position)
