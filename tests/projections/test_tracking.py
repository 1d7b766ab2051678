"""The positions of projections, held to the library's contract and to ours."""

import threading
from unittest import TestCase

import pytest
from eventsourcing.persistence import Tracking, TrackingRecorder
from eventsourcing.tests.persistence import TrackingRecorderTestCase

from recovery_journal.domain.errors import PositionNotReached
from recovery_journal.library_adapter import LibraryTracking
from recovery_journal.postgres.database import Database
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.following.tracking import FollowingState, ProjectionTracking


@pytest.fixture
def tracking(database: Database) -> ProjectionTracking:
    tracking = ProjectionTracking(database)
    with database.transaction() as cursor:
        tracking.create(cursor)
    return tracking


@pytest.mark.parametrize("rule", ["test_insert_tracking", "test_wait"])
def test_the_table_keeps_the_librarys_tracking_contract(
    database: Database, tracking: ProjectionTracking, rule: str
) -> None:
    assert tracking.all() == []

    class Conformance(TrackingRecorderTestCase):
        def create_recorder(self) -> TrackingRecorder:
            return LibraryTracking(database)

    result = Conformance(rule).run()

    assert result is not None
    assert (result.errors, result.failures, result.testsRun) == ([], [], 1)


def test_every_rule_of_the_librarys_contract_is_run() -> None:
    inherited = set(dir(TrackingRecorderTestCase)) - set(dir(TestCase))

    assert {name for name in inherited if name.startswith("test")} == {
        "test_insert_tracking",
        "test_wait",
    }


def test_a_wait_that_ends_without_an_answer_says_where_the_projection_stands(
    database: Database, tracking: ProjectionTracking
) -> None:
    with database.transaction() as cursor:
        tracking.register(cursor, WORKERS)
        tracking.advance(cursor, "workers", 5)
        tracking.stop(cursor, "workers", "cannot\0fold")

    with pytest.raises(PositionNotReached, match=r"found it at 5 .*it stopped: cannot\ufffdfold"):
        LibraryTracking(database).wait("workers", 6, timeout=0.01)


def test_a_wait_returns_once_the_position_is_reached(
    database: Database, tracking: ProjectionTracking
) -> None:
    library = LibraryTracking(database)
    waiting = threading.Thread(target=library.wait, args=("workers", 6, 30.0))
    waiting.start()

    library.insert_tracking(Tracking("workers", 6))

    waiting.join()
    assert library.has_tracking_id("workers", 6)
    assert [place.position for place in tracking.all()] == [6]


def test_one_holder_of_a_place_and_the_second_finds_it_taken(
    database: Database, server_dsn: str, tracking: ProjectionTracking
) -> None:
    other = Database(server_dsn, database.schema)
    with database.transaction() as cursor:
        tracking.register(cursor, WORKERS)

    with database.transaction() as first, other.transaction() as second:
        assert tracking.lock(first, "workers") is not None
        assert tracking.lock(second, "workers") is None

    other.close()


def test_to_register_again_changes_nothing_and_to_restart_forgets_the_error(
    database: Database, tracking: ProjectionTracking
) -> None:
    with database.transaction() as cursor:
        tracking.register(cursor, WORKERS)
        tracking.stop(cursor, "workers", "broken")
        tracking.register(cursor, WORKERS)

    (stopped,) = tracking.all()
    assert (stopped.state, stopped.error) == (FollowingState.STOPPED, "broken")

    with database.transaction() as cursor:
        tracking.restart(cursor, WORKERS, 9)

    (going,) = tracking.all()
    assert (going.state, going.error, going.position) == (FollowingState.FOLLOWING, None, 9)
