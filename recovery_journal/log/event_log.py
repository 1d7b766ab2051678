"""The log of events: loading streams, and reading in order."""

from collections.abc import Sequence
from typing import Final

import msgspec
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import (
    RecoveryJournalError,
    StreamUnusable,
    UnknownAttempt,
)
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.recovery import Recovery
from recovery_journal.log.mapper import UNREADABLE
from recovery_journal.log.reader import SettledReader
from recovery_journal.log.streams import Stream, find, streams
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Record

STATES: Final = b"SELECT state FROM journal_events WHERE originator_id = %(stream)s"


class DecisionId(msgspec.Struct):
    """The fields of every event, whatever else this program knows of it."""

    event_id: str


class EventLog:
    """The log of one schema. Safe to share between threads; its schema exists already."""

    _event_id_of = msgspec.json.Decoder(DecisionId).decode

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reader = SettledReader(database)

    def recovery(self, attempt_id: str, *, version: int | None = None) -> Recovery:
        """An attempt after its `version`-th event, or now. Raises `UnknownAttempt`."""
        with self.database.cursor() as cursor:
            stream = streams(cursor, [attempt_id]).get(attempt_id)
        recovery = stream.recovery(upto=version) if stream else None
        if recovery is None:
            raise UnknownAttempt(attempt_id)
        return recovery

    def streams(
        self, attempt_ids: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> dict[str, Stream]:
        """Whole streams in one query; those that exist."""
        if cursor is not None:
            return streams(cursor, attempt_ids)
        with self.database.cursor() as own:
            return streams(own, attempt_ids)

    def load_many(
        self, attempt_ids: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> dict[str, list[Record] | RecoveryJournalError]:
        """The events of these streams that are not skipped. The answer for an unreadable stream is
        its error."""
        found = self.streams(attempt_ids, cursor)
        return {attempt_id: _records(stream) for attempt_id, stream in found.items()}

    def records(self, cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> list[Record]:
        """Appended events with their positions and times, in order of position."""
        found = []
        for record in find(cursor, events).values():
            if isinstance(record, StreamUnusable):
                raise record
            found.append(record)
        return sorted(found, key=lambda record: record.position)

    def has_decision(
        self, attempt_id: str, event_id: str, cursor: Cursor[DictRow] | None = None
    ) -> bool:
        """Whether a decision is in the stream, whether or not its events can be read."""
        if cursor is None:
            with self.database.cursor() as own:
                return self.has_decision(attempt_id, event_id, own)
        rows = cursor.execute(STATES, {"stream": attempt_id}, prepare=True).fetchall()
        return any(self._event_id(row["state"]) == event_id for row in rows)

    def _event_id(self, state: bytes) -> str | None:
        try:
            return self._event_id_of(state).event_id
        except UNREADABLE:
            return None


def _records(stream: Stream) -> list[Record] | RecoveryJournalError:
    try:
        return stream.records()
    except StreamUnusable as error:
        return error
