"""A real worker process killed, and one suspended, at every boundary of its work in turn."""

from datetime import timedelta

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import LeaseExpired, StaleWriteRefused
from recovery_journal.values.payload import encode
from tests.acceptance.job import RESULT, STEP_COUNT, work_on
from tests.acceptance.programs import started
from tests.acceptance.stop import Settings
from tests.rules.scenes import events_of, rows, sweep_until, types_of

WORKER = "tests.acceptance.worker_program"
IN_DOUBT = {"announced-1": ["r-1/1"], "announced-3": ["r-1/3"]}
CHECKPOINTED = {"announced-3", "checkpointed", "before-complete"}
OPEN = ["acquired", "announced-1", "recorded-2", "checkpointed", "announced-3", "before-complete"]


def settings(journal: rj.Journal, dsn: str, stop_at: str) -> Settings:
    return Settings(dsn=dsn, schema=journal.database.schema, stop_at=stop_at)


def recover_and_finish(journal: rj.Journal, stop_at: str) -> None:
    assert sweep_until(journal).is_ready
    (claim,) = journal.claim(worker_id="w-2", ttl=timedelta(seconds=30))
    assert [effect.key for effect in claim.in_doubt] == IN_DOUBT.get(stop_at, [])
    assert claim.state == ({"sum": 3} if stop_at in CHECKPOINTED else None)
    work_on(claim.lease, claim.state, claim.tail)


def assert_finished_once(journal: rj.Journal) -> None:
    (row,) = rows(journal, "SELECT status, ordinal, result_digest FROM leases")
    assert row == {
        "status": "completed",
        "ordinal": STEP_COUNT,
        "result_digest": encode(RESULT, name="it").digest,
    }
    assert types_of(journal).count("LeaseEnded") == 1


@pytest.mark.parametrize("stop_at", OPEN)
def test_a_worker_killed_at_any_boundary_is_finished_by_another(
    journal: rj.Journal, server_dsn: str, stop_at: str
) -> None:
    with started(WORKER, settings(journal, server_dsn, stop_at)) as worker:
        worker.kill()

    recover_and_finish(journal, stop_at)

    assert_finished_once(journal)
    assert [event.loss for event in events_of(journal, LeaseExpired)] == [rj.LossReason.TTL]


def test_a_worker_killed_after_it_completed_is_nobodys_loss(
    journal: rj.Journal, server_dsn: str
) -> None:
    with started(WORKER, settings(journal, server_dsn, "completed")) as worker:
        worker.kill()

    assert journal.sweep() == []
    assert_finished_once(journal)


@pytest.mark.parametrize("stop_at", OPEN)
def test_a_worker_suspended_at_any_boundary_is_refused_once_it_wakes(
    journal: rj.Journal, server_dsn: str, stop_at: str
) -> None:
    with started(WORKER, settings(journal, server_dsn, stop_at)) as worker:
        worker.suspend()
        recover_and_finish(journal, stop_at)

        worker.wake()
        worker.until_said("lease lost")
        assert worker.until_ended() == 0

    assert_finished_once(journal)
    (refused,) = events_of(journal, StaleWriteRefused)
    assert refused.fence == journal.recovery("a-1", version=1).fence
