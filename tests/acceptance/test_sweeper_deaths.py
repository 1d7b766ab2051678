"""A real sweeper process killed, and one suspended, at every boundary of the pipeline in turn."""

from datetime import timedelta

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import Dispatched, LeaseExpired, Seized
from recovery_journal.values.payload import encode
from tests.acceptance.job import RESULT, begin, work_on
from tests.acceptance.programs import started
from tests.acceptance.stop import Settings
from tests.rules.scenes import events_of, rows, types_of, until

STEPS = ["LeaseExpired", "CheckpointReloaded", "Replayed", "ReadyForDispatch"]
IN_THE_PIPELINE = ["LEASE_EXPIRED", "CHECKPOINT_RELOAD", "replay computed", "REPLAY"]
BOUNDARIES = ["before", *IN_THE_PIPELINE, "READY_FOR_DISPATCH"]
UNCOMMITTED = [f"{step} uncommitted" for step in STEPS]
SWEEPER = "tests.acceptance.sweeper_program"


def crash_a_worker(journal: rj.Journal) -> None:
    """Three of four run steps, a checkpoint after the second, one announced; then silence."""
    lease = begin(journal)

    class Silence(Exception):
        pass

    def fall_silent(boundary: str) -> None:
        if boundary == "announced-4":
            raise Silence

    with pytest.raises(Silence):
        work_on(lease, reach=fall_silent)


def settings(journal: rj.Journal, dsn: str, stop_at: str) -> Settings:
    return Settings(dsn=dsn, schema=journal.database.schema, stop_at=stop_at)


def take_over(journal: rj.Journal) -> None:
    """Another sweeper sweeps, until the attempt may be claimed."""

    def is_ready() -> bool:
        journal.sweep()
        return journal.recovery("a-1").stage is rj.Stage.READY

    until(is_ready, "another sweeper to take over")


def finish(journal: rj.Journal) -> None:
    """Two workers ask; the one that is started finishes."""
    claims = [
        claim
        for worker_id in ("w-2", "w-3")
        for claim in journal.claim(worker_id=worker_id, ttl=timedelta(seconds=30))
    ]
    (claim,) = claims
    assert [effect.key for effect in claim.in_doubt] == ["r-1/4"]
    assert claim.state == {"sum": 3}
    work_on(claim.lease, claim.state, claim.tail)


def assert_recovered_once(journal: rj.Journal, stop_at: str) -> None:
    names = types_of(journal)
    assert [name for name in names if name in STEPS] == STEPS
    assert len(events_of(journal, Dispatched)) == 1
    (row,) = rows(journal, "SELECT status, result_digest FROM leases")
    assert row == {"status": "completed", "result_digest": encode(RESULT, name="it").digest}
    (lost,) = events_of(journal, LeaseExpired)
    seizures = events_of(journal, Seized)
    assert len(seizures) == (1 if _was_taken_over(stop_at) else 0)
    for seized in seizures:
        assert lost.fence is not None
        assert seized.from_fence == lost.fence
        assert seized.fence.epoch > lost.fence.epoch > lost.lease.fence.epoch


def _was_taken_over(stop_at: str) -> bool:
    return stop_at in [*IN_THE_PIPELINE, *UNCOMMITTED[1:]]


@pytest.mark.parametrize("stop_at", [*BOUNDARIES, *UNCOMMITTED])
def test_a_sweeper_killed_at_any_boundary_is_replaced_by_another(
    journal: rj.Journal, server_dsn: str, stop_at: str
) -> None:
    crash_a_worker(journal)
    with started(SWEEPER, settings(journal, server_dsn, stop_at)) as sweeper:
        sweeper.kill()

    take_over(journal)
    finish(journal)

    assert_recovered_once(journal, stop_at)


@pytest.mark.parametrize("stop_at", BOUNDARIES)
def test_a_sweeper_suspended_at_any_boundary_writes_nothing_once_it_wakes(
    journal: rj.Journal, server_dsn: str, stop_at: str
) -> None:
    crash_a_worker(journal)
    with started(SWEEPER, settings(journal, server_dsn, stop_at)) as sweeper:
        sweeper.suspend()
        take_over(journal)
        finish(journal)
        before = journal.history("a-1")

        sweeper.wake()
        sweeper.until_said(AFTERWARDS[stop_at])
        assert sweeper.until_ended() == 0

    assert journal.history("a-1") == before
    assert_recovered_once(journal, stop_at)


AFTERWARDS = {
    "before": "nothing to do",
    **dict.fromkeys(IN_THE_PIPELINE, "another sweeper has taken it over"),
    "READY_FOR_DISPATCH": "ready",  # it had done all of it
}
