"""The eventsourcing application over the log: appending, loading streams, reading in order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.persistence import BaseInfrastructureFactory, InfrastructureFactory
from eventsourcing.postgres import PostgresFactory
from eventsourcing.utils import Environment, EnvType
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from domain.errors import AppendConflict, CorruptEvent, RecoveryJournalError, UnknownAttempt
from domain.events import AnyEvent
from domain.recovery import Recovery, evolve, project
from projections.projection import Record
from recovery_journal.log.appender import Appender, find, record_of
from recovery_journal.log.cohort_appender import CohortAppender
from recovery_journal.log.datastore import JournalDatastore, journal_errors
from recovery_journal.log.mapper import UNREADABLE, JournalMapper, decode_block
from recovery_journal.log.reader import SettledReader
from recovery_journal.log.recorder import JournalRecorder
from recovery_journal.postgres.arrays import array
from recovery_journal.postgres.database import Database

LOAD_MANY: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at
FROM journal_events
WHERE originator_id = ANY(%(streams)s)
ORDER BY originator_id, originator_version
"""

STREAMS: Final = b"""
SELECT originator_id, originator_version, topic, state
FROM journal_events
WHERE originator_id = ANY(%(streams)s::text[])
ORDER BY originator_id, originator_version
"""

STATES: Final = b"SELECT state FROM journal_events WHERE originator_id = %(stream)s"


class JournalFactory(PostgresFactory):
    """The library's PostgreSQL factory for a database that is given, not named in settings.

    Settings cannot carry a DSN. Which recorder and which mapper are used stays a setting.
    """

    def __init__(self, env: Environment | EnvType | None, database: Database) -> None:
        # Not PostgresFactory's __init__, which reads where the server is from the settings.
        BaseInfrastructureFactory.__init__(self, env)
        self.datastore = JournalDatastore(database)


class DecisionId(msgspec.Struct):
    """What every event has, whatever else this program knows of it."""

    event_id: str


class JournalApplication(Application[str]):
    """The log of one schema. Safe to share between threads; its schema exists already."""

    mapper: JournalMapper
    recorder: JournalRecorder

    name = "journal"
    env: ClassVar[dict[str, str]] = {
        "APPLICATION_RECORDER_TOPIC": "recovery_journal.log.recorder:JournalRecorder",
        "MAPPER_TOPIC": "recovery_journal.log.mapper:JournalMapper",
        "CREATE_TABLE": "no",
        "ORIGINATOR_ID_TYPE": "text",
    }
    _event_id_of = msgspec.json.Decoder(DecisionId).decode

    def __init__(self, database: Database) -> None:
        self._database = database
        super().__init__()
        self.reader: SettledReader = self.recorder.reader
        self._appender = Appender(database, self.mapper, self.recorder)
        self._cohorts = CohortAppender(self.mapper)

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Our settings and no others: the variables of this process may configure an event-sourced
        application of the user's own."""
        return Environment(name, {**type(self).env, **(env or {})})

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        """The factory, given our database."""
        return JournalFactory(env, self._database)

    # Appending --------------------------------------------------------------------------------

    def append(
        self,
        events: Sequence[AnyEvent],
        cursor: Cursor[DictRow] | None = None,
        *,
        again: bool = False,
    ) -> list[int]:
        """Append all or none; see `Appender.append`."""
        return self._appender.append(events, cursor=cursor, again=again)

    def append_cohort(
        self,
        batches: Sequence[Sequence[AnyEvent]],
        cursor: Cursor[DictRow],
        *,
        again: bool = False,
    ) -> list[int | AppendConflict]:
        """Append stream by stream; see `CohortAppender.append`."""
        return self._cohorts.append(batches, cursor, again=again)

    # Loading ----------------------------------------------------------------------------------

    def recovery(self, attempt_id: str, *, version: int | None = None) -> Recovery:
        """An attempt after its `version`-th event, or now. Raises `UnknownAttempt`."""
        try:
            with journal_errors(self._database):
                recovery: Recovery = self.repository.get(
                    attempt_id, version=version, projector_func=project
                )
        except AggregateNotFoundError as error:
            raise UnknownAttempt(attempt_id) from error
        return recovery

    def load_many(
        self, attempt_ids: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> dict[str, list[Record] | RecoveryJournalError]:
        """Whole streams in one query; those that exist. An unreadable one answers by its error."""
        if cursor is None:
            with self._database.cursor() as own:
                return self.load_many(attempt_ids, own)
        rows = cursor.execute(LOAD_MANY, {"streams": list(attempt_ids)}, prepare=True).fetchall()
        streams: defaultdict[str, list[DictRow]] = defaultdict(list)
        for row in rows:
            streams[row["originator_id"]].append(row)
        return {stream: self._records(rows) for stream, rows in streams.items()}

    def load_recoveries(
        self, attempt_ids: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> dict[str, Recovery | RecoveryJournalError]:
        """Attempts as their streams tell them; those that exist."""
        if cursor is not None and (read := self._recoveries(attempt_ids, cursor)) is not None:
            return read
        recoveries: dict[str, Recovery | RecoveryJournalError] = {}
        for attempt_id, found in self.load_many(attempt_ids, cursor).items():
            if isinstance(found, RecoveryJournalError):
                recoveries[attempt_id] = found
            elif recovery := folded(found):
                recoveries[attempt_id] = recovery
        return recoveries

    def _recoveries(
        self, attempt_ids: Sequence[str], cursor: Cursor[DictRow]
    ) -> dict[str, Recovery | RecoveryJournalError] | None:
        """The attempts, decoded all at once; None where one of their events cannot be read."""
        wanted = {"streams": array(attempt_ids)}
        with cursor.connection.cursor(binary=True, row_factory=tuple_row) as streams:
            rows = streams.execute(STREAMS, wanted, prepare=True).fetchall()
        try:
            events = decode_block([row[:3] for row in rows], [row[3] for row in rows])
            recoveries: dict[str, Recovery | RecoveryJournalError] = {}
            for event in events:
                found = recoveries.get(event.originator_id)
                assert not isinstance(found, RecoveryJournalError)
                recoveries[event.originator_id] = evolve(found, event)
        except (ValueError, CorruptEvent):  # JSON errors are values too
            return None
        return recoveries

    def records(self, cursor: Cursor[DictRow], events: Sequence[AnyEvent]) -> list[Record]:
        """Appended events with their positions and times, in order of position."""
        found = find(cursor, events)
        return sorted(found.values(), key=lambda record: record.position)

    def has_decision(
        self, attempt_id: str, event_id: str, cursor: Cursor[DictRow] | None = None
    ) -> bool:
        """Whether a decision is in the stream, be its events readable or not."""
        if cursor is None:
            with self._database.cursor() as own:
                return self.has_decision(attempt_id, event_id, own)
        rows = cursor.execute(STATES, {"stream": attempt_id}, prepare=True).fetchall()
        return any(self._event_id(row["state"]) == event_id for row in rows)

    def _records(self, rows: Sequence[DictRow]) -> list[Record] | RecoveryJournalError:
        try:
            return [record_of(row) for row in rows]
        except RecoveryJournalError as error:
            return error

    def _event_id(self, state: bytes) -> str | None:
        try:
            return self._event_id_of(state).event_id
        except UNREADABLE:
            return None


def folded(records: Iterable[Record]) -> Recovery | RecoveryJournalError | None:
    """The attempt that a whole stream tells of; where that has no beginning, the error."""
    try:
        return project(None, (record.event for record in records))
    except CorruptEvent as error:
        return error
