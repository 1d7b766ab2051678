"""A write of a function that meets a restart or a refusal of the server happens, and once."""

import psycopg
import pytest

from recovery_journal.domain.events import LeaseExpired
from recovery_journal.worker.outcome import Outcome
from tests.servers import PrivateServer
from tests.worker.desk import Desk
from tests.worker.functions import until


@pytest.mark.parametrize("kind", ["hold_and_record", "hold_and_announce", "hold_and_save"])
def test_a_write_during_a_restart_is_made_once_by_the_same_lease(
    cut_off: Desk, private_server: PrivateServer, kind: str
) -> None:
    desk = cut_off
    desk.make_ready("a-1", kind)
    worker = desk.start(ttl_s=30)
    desk.child_id()

    private_server.stop()
    desk.let_go()
    until((desk.folder / "written").exists, "the write")
    private_server.start()

    assert worker.until_ended() == [Outcome.COMPLETED]
    desk.reconnect()
    assert (desk.folder / "effects").read_text() == "1"
    assert len(desk.events("a-1", LeaseExpired)) == 1  # its starter handed it back
    assert desk.journal.result("a-1") == 1


def test_a_write_that_a_lock_is_in_the_way_of_waits_for_it(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_and_record")
    worker = desk.start(ttl_s=30)
    desk.child_id()
    lock = f"LOCK TABLE {desk.journal.database.schema}.run_steps IN EXCLUSIVE MODE"

    with psycopg.connect(desk.dsn) as other:
        other.execute(lock.encode())
        desk.let_go()
        until((desk.folder / "written").exists, "the write")
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"
        until(lambda: other.execute(blocked.encode()).fetchone() != (0,), "the write to wait")
        ended = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted"
        other.execute(ended.encode())
        other.rollback()

    assert worker.until_ended() == [Outcome.COMPLETED]
    assert (desk.folder / "effects").read_text() == "1"


def test_an_outage_longer_than_a_ttl_ends_the_turn_and_counts_nothing(
    cut_off: Desk, private_server: PrivateServer
) -> None:
    desk = cut_off
    desk.make_ready("a-1", "hold_and_record")
    worker = desk.start(ttl_s=1)
    desk.child_id()

    private_server.stop()
    desk.let_go()
    assert worker.until_ended() == [Outcome.FENCED]
    private_server.start()
    desk.reconnect()
    desk.sweep_until_lost("a-1")

    assert worker.until_ended(2) == [Outcome.FENCED, Outcome.COMPLETED]
