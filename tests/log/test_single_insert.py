"""One event by libpq's own calls is appended as any other way would."""

import psycopg
import pytest
from eventsourcing.persistence import DataError, StoredEvent

from recovery_journal.domain.errors import StoreBusy
from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.database import Database
from tests.log.events import an_event, version_of
from tests.relays.pooler import Pooler


def roll_back() -> None:
    raise psycopg.Rollback


def test_appends_go_on_after_a_transaction_of_their_thread_was_rolled_back(
    database: Database, application: JournalApplication
) -> None:
    application.append([an_event("a-1", 1)])
    with database.transaction() as cursor:
        # psycopg forgets all prepared statements at a rollback, if it has prepared one itself.
        cursor.execute("SELECT 1", prepare=True)
        roll_back()

    application.append([an_event("a-1", 2)])

    assert version_of(application, "a-1") == 2


def test_without_a_cursor_an_event_belongs_to_the_transaction_that_is_open(
    database: Database, application: JournalApplication
) -> None:
    with database.transaction():
        application.append([an_event("a-1", 1)])
        roll_back()

    assert version_of(application, "a-1") == 0


def test_an_event_is_appended_through_a_pooler_that_lends_a_backend_for_each_statement(
    database: Database, server_dsn: str
) -> None:
    with Pooler.before(server_dsn, search_path=database.schema) as pooler:
        far = Database(pooler.dsn, database.schema)
        application = JournalApplication(far)

        for version in range(1, 6):
            application.append([an_event("a-1", version)])

        assert version_of(application, "a-1") == 5
        far.close()


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
    application: JournalApplication, event: StoredEvent
) -> None:
    with pytest.raises(DataError):
        application.recorder.insert_events([event])

    assert application.reader.last_position() == 0


def test_an_append_that_waits_too_long_for_another_writer_says_so(
    database: Database, server_dsn: str
) -> None:
    impatient = Database(server_dsn, database.schema, lock_s=0.1)
    application = JournalApplication(impatient)
    with database.transaction() as cursor:
        JournalApplication(database).append([an_event("a-1", 1)], cursor)

        with pytest.raises(StoreBusy):
            application.append([an_event("a-1", 1, "another")])

    impatient.close()
