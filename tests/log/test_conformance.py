"""The library's own conformance suites and repository, run against our adapter.

Two kinds of theirs do not fit. The suite of process recorders is about tables that the projections
keep (tests/projections). The factory's suite asks for aggregate and process recorders, compressors
and ciphers, which the journal does not have.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import (
    DataError,
    EventStore,
    IntegrityError,
    JSONTranscoder,
    StoredEvent,
)
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from recovery_journal.domain.recovery import project
from recovery_journal.library_adapter import LibraryMapper, LibraryRecorder, repository
from recovery_journal.postgres.database import Database
from tests.domain.histories import granted, history
from tests.log.event_log import EventLog
from tests.log.events import ALLOW_VERSION_0, an_event, append, version_of


class OnOurServer:
    """The suites need to know of ours: a database, and that ids are texts.

    The library lets a stream begin with any version, and some of theirs begin with 0. Our table
    refuses that (test_append_only.py), so here it does not.
    """

    @pytest.fixture(autouse=True)
    def _given(self, database: Database) -> None:
        self._database = database
        with database.cursor() as cursor:
            cursor.execute(ALLOW_VERSION_0)

    def new_originator_id(self) -> str:
        return str(uuid4())

    def create_recorder(self) -> LibraryRecorder:
        return LibraryRecorder(self._database)


class WithoutPositions(LibraryRecorder):
    """An aggregate recorder, as the library means it, has no positions to answer with."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super().insert_events(stored_events, **kwargs)


class TestAggregateRecorder(OnOurServer, AggregateRecorderTestCase):
    def create_recorder(self) -> LibraryRecorder:
        return WithoutPositions(self._database)


class TestApplicationRecorder(OnOurServer, ApplicationRecorderTestCase[LibraryRecorder]):
    # A refused append uses up its position, so positions have gaps.
    EXPECT_CONTIGUOUS_NOTIFICATION_IDS = False

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


@pytest.mark.skip(reason="we do not promise that a batch has a block of positions to itself")
class TestNonInterleaving(OnOurServer, NonInterleavingNotificationIDsBaseCase):
    pass


@pytest.fixture
def store(database: Database) -> EventStore[str]:
    return EventStore(LibraryMapper(JSONTranscoder()), LibraryRecorder(database))


def test_the_repository_of_the_library_has_the_attempts_of_the_log(
    event_log: EventLog, database: Database
) -> None:
    append(event_log, history(granted(), attempt_id="a-1"))

    found: Any = repository(database).get("a-1", projector_func=project)

    assert found == event_log.recovery("a-1")
    with pytest.raises(AggregateNotFoundError):
        repository(database).get("unknown", projector_func=project)


def test_a_store_of_the_library_appends_in_the_callers_transaction(
    event_log: EventLog, database: Database, store: EventStore[str]
) -> None:
    def put_and_fail() -> None:
        with database.transaction() as cursor:
            store.put([an_event("a-1", 1)], cursor=cursor)
            cursor.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        put_and_fail()

    assert version_of(event_log, "a-1") == 0


def test_an_event_that_the_library_appends_belongs_to_the_transaction_that_is_open(
    event_log: EventLog, database: Database, store: EventStore[str]
) -> None:
    with database.transaction():
        store.put([an_event("a-1", 1)])
        raise_rollback()

    assert version_of(event_log, "a-1") == 0


def raise_rollback() -> None:
    raise psycopg.Rollback


@pytest.mark.parametrize(
    "event",
    [
        StoredEvent("a\0b", 1, "t", b""),
        StoredEvent("a", 1, "t\0u", b""),
        StoredEvent("a", 2**63, "t", b""),
    ],
    ids=["a NUL in the stream", "a NUL in the tag", "a version too large"],
)
def test_what_a_column_cannot_hold_is_refused_and_not_cut(
    event_log: EventLog, database: Database, event: StoredEvent
) -> None:
    with pytest.raises(DataError):
        LibraryRecorder(database).insert_events([event])

    assert event_log.reader.last_position() == 0


def test_settings_of_a_users_own_application_do_not_reach_the_journal(
    event_log: EventLog,
    database: Database,
    store: EventStore[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMPRESSOR_TOPIC", "zlib")
    monkeypatch.setenv("PERSISTENCE_MODULE", "eventsourcing.popo")
    monkeypatch.setenv("MAPPER_TOPIC", "eventsourcing.persistence:Mapper")
    monkeypatch.setenv("IS_SNAPSHOTTING_ENABLED", "y")

    append(event_log, [an_event("a-1", 1)])

    assert repository(database).snapshot_store is None
    assert list(store.get("a-1")) == [an_event("a-1", 1)]
    with pytest.raises(IntegrityError):
        store.put([an_event("a-1", 1)])
