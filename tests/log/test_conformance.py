"""The library's own conformance suites, run against our recorder.

Two kinds of theirs do not fit. The suites of tracking and process recorders are about tables that
the projections keep (tests/projections). The factory's suite asks for aggregate and process
recorders, compressors and ciphers, which the journal does not have.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from recovery_journal.log.application import JournalApplication
from recovery_journal.log.recorder import JournalRecorder
from recovery_journal.postgres.database import Database
from tests.log.events import ALLOW_VERSION_0


class OnOurServer:
    """The parts that the suites need: a database, and texts as ids.

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

    def create_recorder(self) -> JournalRecorder:
        """The recorder that the application's settings select."""
        return JournalApplication(self._database).recorder


class PositionsHidden(JournalRecorder):
    """An aggregate recorder, as the library means it, has no positions to answer with."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super().insert_events(stored_events, **kwargs)


class TestAggregateRecorder(OnOurServer, AggregateRecorderTestCase):
    def create_recorder(self) -> JournalRecorder:
        return PositionsHidden(super().create_recorder().datastore)


class TestApplicationRecorder(OnOurServer, ApplicationRecorderTestCase[JournalRecorder]):
    # A refused append uses up its position, so positions have gaps.
    EXPECT_CONTIGUOUS_NOTIFICATION_IDS = False

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


@pytest.mark.skip(reason="we do not promise that a batch has a block of positions to itself")
class TestNonInterleaving(OnOurServer, NonInterleavingNotificationIDsBaseCase):
    pass
