"""One transaction that appended to one attempt and stays open holds up that attempt alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import recovery_journal as rj
from recovery_journal.leases import set_aside
from recovery_journal.log.cohort_appender import FEW
from recovery_journal.reading.delays import DelayKind
from tests.rules.forgeries import next_version
from tests.rules.scenes import (
    change,
    claim_one,
    held,
    make_ready,
    report,
    rows,
    session,
    until_passed,
)

APPEND = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, 'confirmed', '{}')
"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is counted in waits; none of these tests needs long ones."""
    monkeypatch.setattr(set_aside, "BE_BRIEF", "SET LOCAL lock_timeout = '50ms'")
    for module in ("recovering.loss", "recovering.cohort"):
        monkeypatch.setattr(
            f"recovery_journal.{module}.BE_BRIEF", "SET LOCAL lock_timeout = '50ms'"
        )


@contextmanager
def left_open(journal: rj.Journal, dsn: str, *attempt_ids: str) -> Iterator[None]:
    """The next version of each of these streams is appended, and not committed."""
    with session(journal, dsn) as other:
        for attempt_id in attempt_ids:
            other.execute(APPEND, [attempt_id, next_version(journal, attempt_id)])
        yield


@pytest.mark.parametrize("count", [2, FEW, 2 * FEW])
def test_one_sweep_recovers_all_others(damaged: rj.Journal, server_dsn: str, count: int) -> None:
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(count)]

    with left_open(damaged, server_dsn, "a-01"):
        swept = {one.attempt_id: one for one in report(damaged, leases[0])}

        assert [id_ for id_, one in swept.items() if not one.is_ready] == ["a-01"]
        assert [one.attempt_id for one in damaged.quarantined()] == ["a-01"]
        assert DelayKind.SET_ASIDE in [delay.kind for delay in damaged.status().delays]

    until_passed(damaged, "a-01", column="retry_at")
    [late] = damaged.sweep()
    assert late.is_ready
    assert damaged.quarantined() == []


def test_many_that_are_open_hold_up_no_other(damaged: rj.Journal, server_dsn: str) -> None:
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(16)]
    blocked = [f"a-{number:02}" for number in range(0, 16, 4)]

    with left_open(damaged, server_dsn, *blocked):
        swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert sorted(id_ for id_, one in swept.items() if not one.is_ready) == blocked


def test_after_the_limit_of_waits_a_sweep_says_so_and_the_next_goes_on(
    damaged: rj.Journal, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "TIMEOUT_LIMIT", 2)
    leases = [held(damaged, f"a-{number:02}", worker_id="w-1") for number in range(4)]

    with left_open(damaged, server_dsn, "a-00"):
        with pytest.raises(rj.Retry):
            report(damaged, leases[0])
        monkeypatch.undo()
        damaged.sweep()

    ready = rows(damaged, "SELECT FROM leases WHERE status = 'ready'")
    assert len(ready) == len(leases) - 1


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_claims_pass_over_it(damaged: rj.Journal, server_dsn: str, limit: int) -> None:
    for number in range(6):
        make_ready(damaged, f"a-{number}")

    with left_open(damaged, server_dsn, "a-0"):
        won = [claim for _ in range(6) for claim in damaged.claim(worker_id="w-2", limit=limit)]

        assert sorted(claim.lease.attempt_id for claim in won) == [f"a-{n}" for n in range(1, 6)]
        for claim in won:
            claim.lease.complete(None)

    until_passed(damaged, "a-0", column="retry_at")
    assert claim_one(damaged).lease.attempt_id == "a-0"


def test_it_holds_up_a_step_between_loss_and_dispatch_of_one_attempt_alone(
    damaged: rj.Journal, server_dsn: str
) -> None:
    """The sweeper has fenced them all when the append is opened."""
    schema = damaged.database.schema
    with session(damaged, server_dsn) as other:

        def open_one(taken: rj.StepTaken) -> None:
            if taken.step is rj.RecoveryStep.LEASE_EXPIRED:
                other.execute(APPEND, ["a-1", next_version(damaged, "a-1")])

        limits = rj.Limits(ttl_s=60.0)
        with rj.open(server_dsn, schema=schema, limits=limits, observer=open_one) as sweeper:
            leases = [held(sweeper, f"a-{number}", worker_id="w-1") for number in range(3)]
            swept = {one.attempt_id: one for one in report(sweeper, leases[0])}

        assert [swept[f"a-{number}"].is_ready for number in range(3)] == [True, False, True]
        assert [one.attempt_id for one in damaged.quarantined()] == ["a-1"]

    change(damaged, "UPDATE leases SET retry_at = clock_timestamp() WHERE attempt_id = 'a-1'")
    damaged.sweep()
    assert damaged.quarantined() == []


def test_a_worker_that_holds_another_attempt_ends_it_meanwhile(
    damaged: rj.Journal, server_dsn: str
) -> None:
    lease = held(damaged, "a-1")
    held(damaged, "a-2")

    with left_open(damaged, server_dsn, "a-2"):
        lease.record_step("step-1", 1)
        lease.complete(1)
        held(damaged, "a-3").complete(3)

    assert damaged.result("a-1") == 1
