"""One bad lease never holds up its cohort: damage in one stream is that stream's alone."""

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import CorruptEvent, UnknownEvent
from recovery_journal.domain.events import LeaseExpired
from tests.rules.scenes import change, events_of, held, report, rows, types_of, until

FUTURE = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%(attempt)s, %(version)s, 'lease-teleported', '{"type": "lease-teleported"}')
"""
BROKEN = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%(attempt)s, %(version)s, 'lease-expired', '{"type": "lease-')
"""
DAMAGE = {"unknown tag": (FUTURE, UnknownEvent), "broken JSON": (BROKEN, CorruptEvent)}
ATTEMPTS = ["a-1", "a-2", "a-3"]

damage = pytest.mark.parametrize("damage", DAMAGE)


def spoil(journal: rj.Journal, damage: str, attempt_id: str = "a-2") -> None:
    """Something stands at the end of the stream that this program cannot read."""
    values = {"attempt": attempt_id, "version": journal.recovery(attempt_id).version + 1}
    change(journal, DAMAGE[damage][0], values)


@damage
def test_an_unreadable_stream_does_not_hold_up_its_cohort(damaged: rj.Journal, damage: str) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ATTEMPTS]
    spoil(damaged, damage)

    swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert [swept[attempt_id].is_ready for attempt_id in ATTEMPTS] == [True, False, True]
    assert "position 4" in swept["a-2"].error
    for attempt_id in ("a-1", "a-3"):
        assert len(events_of(damaged, LeaseExpired, attempt_id)) == 1


@damage
def test_an_unreadable_stream_does_not_fill_every_sweep(damaged: rj.Journal, damage: str) -> None:
    lease = held(damaged, "a-2")
    spoil(damaged, damage)
    report(damaged, lease)

    assert damaged.sweep() == []
    assert rows(damaged, "SELECT status FROM leases") == [{"status": "held"}]


@damage
def test_an_unreadable_stream_is_not_dispatched_and_holds_up_no_claim(
    damaged: rj.Journal, damage: str
) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ATTEMPTS]
    report(damaged, leases[0])
    spoil(damaged, damage, "a-1")

    claims = damaged.claim(worker_id="w-2", limit=3)

    assert [claim.lease.attempt_id for claim in claims] == ["a-2", "a-3"]
    assert damaged.claim(worker_id="w-2") == []


@damage
def test_an_unreadable_stream_is_not_in_the_way_of_a_claim_of_one(
    damaged: rj.Journal, damage: str
) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ATTEMPTS]
    report(damaged, leases[0])
    spoil(damaged, damage, "a-1")
    found: list[rj.Claim] = []

    def is_claimed() -> bool:
        found.extend(damaged.claim(worker_id="w-2"))
        return bool(found)

    until(is_claimed, "a claim")

    assert found[0].lease.attempt_id == "a-2"


@damage
def test_an_unreadable_stream_says_so_to_its_reader(damaged: rj.Journal, damage: str) -> None:
    held(damaged, "a-2")
    spoil(damaged, damage)
    error = DAMAGE[damage][1]

    for read in (damaged.history, damaged.recovery):
        with pytest.raises(error, match=r"position (2|\?)"):
            read("a-2")
    with pytest.raises(error, match="position 2"):
        damaged.cancel("a-2", by="on-call", reason="broken")


def test_an_unreadable_event_between_two_steps_stops_that_attempt_alone(
    damaged: rj.Journal, server_dsn: str
) -> None:
    schema = damaged.database.schema

    def spoil_one(taken: rj.StepTaken) -> None:
        if taken.step is rj.RecoveryStep.CHECKPOINT_RELOAD:
            spoil(damaged, "unknown tag")

    limits = rj.Limits(ttl_s=60.0)
    with rj.open(server_dsn, schema=schema, limits=limits, observer=spoil_one) as sweeper:
        leases = [held(sweeper, attempt_id, worker_id="w-1") for attempt_id in ATTEMPTS]
        swept = {one.attempt_id: one for one in report(sweeper, leases[0])}

    assert [swept[attempt_id].is_ready for attempt_id in ATTEMPTS] == [True, False, True]
    assert swept["a-2"].error
    assert types_of(damaged, "a-1")[-1] == "ReadyForDispatch"


def test_a_lease_row_ahead_of_its_stream_stops_that_attempt_alone(damaged: rj.Journal) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ATTEMPTS]
    change(damaged, "UPDATE leases SET epoch = 9999999 WHERE attempt_id = 'a-2'")

    swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert swept["a-1"].is_ready
    assert swept["a-3"].is_ready
    assert swept["a-2"].error
