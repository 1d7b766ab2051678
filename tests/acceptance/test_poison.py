"""Poisonous runs among real workers and sweepers: each is given up with a reason, and the others
are completed meanwhile."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

import recovery_journal as rj
from recovery_journal.domain.events import (
    Confirmed,
    Dispatched,
    LeaseEnded,
    LeaseExpired,
    QuarantineCause,
    Quarantined,
    ReadyForDispatch,
    StepFailed,
)
from tests.acceptance.poison_program import LARGE, LIMITS, TOUCHED
from tests.acceptance.programs import Program, is_alive, started
from tests.acceptance.stop import Settings
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import change, events_of, last_of, rows, said_last, types_of, until

PROGRAM = "tests.acceptance.poison_program"
GOOD_COUNT = 4
PERSON = {"by": "on-call", "reason": "the old workers are gone for good"}


class Fleet:
    """Programs in their roles; a killed one is started again on request."""

    def __init__(self, stack: ExitStack, dsn: str, schema: str) -> None:
        self._stack = stack
        self._dsn = dsn
        self._schema = schema
        self.programs: dict[str, Program] = {}
        self.start_count = 0

    def start(self, *roles: str) -> None:
        for role in roles:
            settings = Settings(dsn=self._dsn, schema=self._schema, stop_at=role)
            self.programs[role] = self._stack.enter_context(started(PROGRAM, settings))
            self.start_count += 1

    def restart_the_dead(self) -> None:
        for role, program in list(self.programs.items()):
            if program.process.poll() is not None:
                self.start(role)

    def stop(self, role: str) -> None:
        program = self.programs.pop(role)
        program.process.send_signal(signal.SIGTERM)
        assert program.until_ended() == 0


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """A journal with the limits of the fleet."""
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal
        assert_in_step(journal)


@pytest.fixture
def fleet(journal: rj.Journal, server_dsn: str) -> Iterator[Fleet]:
    """No program outlives the test."""
    with ExitStack() as stack:
        yield Fleet(stack, server_dsn, journal.database.schema)


def begin(journal: rj.Journal, kind: str, number: int = 0, *, code_version: str = "") -> rj.Lease:
    """An attempt of such a run with a step in its tail; poison comes before what is good."""
    lease = journal.acquire(
        attempt_id=f"{kind} {number}",
        run_id=f"run {kind} {number}",
        worker_id="begins",
        kind=kind,
        priority=int(kind != "good"),
        code_version=code_version,
    )
    lease.record_step("begun", number)
    return lease


def begin_all(journal: rj.Journal, *kinds: str) -> list[rj.Lease]:
    """One attempt of each poisonous kind, and some that are good."""
    poison = [begin(journal, kind) for kind in kinds]
    return poison + [begin(journal, "good", number) for number in range(GOOD_COUNT)]


def lose(journal: rj.Journal, leases: list[rj.Lease]) -> None:
    """Their worker drains: any sweeper takes them."""
    attempts = [lease.attempt_id for lease in leases]
    drained = "UPDATE leases SET loss = 'handed_back' WHERE attempt_id = ANY(%(attempts)s)"
    assert change(journal, drained, {"attempts": attempts}) == len(attempts)


def statuses(journal: rj.Journal) -> dict[str, str]:
    found = rows(journal, "SELECT attempt_id, status FROM leases")
    return {row["attempt_id"]: row["status"] for row in found}


def until_settled(journal: rj.Journal, fleet: Fleet) -> None:
    """Until nothing is left to do but by a person."""

    def is_settled() -> bool:
        fleet.restart_the_dead()
        return set(statuses(journal).values()) <= {"completed", "failed", "quarantined"}

    until(is_settled, "everything to be settled")


def assert_good_are_done(journal: rj.Journal) -> None:
    for number in range(GOOD_COUNT):
        assert types_of(journal, f"good {number}")[-1] == "LeaseEnded"
        assert types_of(journal, f"good {number}").count("LeaseEnded") == 1
        assert journal.result(f"good {number}") == "done"


def was_touched(journal: rj.Journal, attempt_id: str) -> bool:
    """Whether the user's function ran."""
    query = "SELECT 1 FROM run_steps WHERE run_id = %(run)s AND name = %(name)s"
    return bool(rows(journal, query, {"run": f"run {attempt_id}", "name": TOUCHED}))


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("kills its worker", rj.LossReason.SESSION_LOST),
        ("kills itself", rj.LossReason.REPORTED),
        ("hangs", rj.LossReason.STALLED),
    ],
)
def test_a_run_that_ruins_its_worker_each_time_is_given_up_and_the_others_are_done(
    journal: rj.Journal, fleet: Fleet, kind: str, loss: rj.LossReason
) -> None:
    leases = begin_all(journal, kind)
    fleet.start("sweeper", "worker")
    lose(journal, leases)

    until_settled(journal, fleet)

    quarantined = last_of(journal, Quarantined, f"{kind} 0")
    assert quarantined.cause is QuarantineCause.CRASH_LOOP
    assert "3 recoveries in a row without progress" in quarantined.explanation
    losses = [event.loss for event in events_of(journal, LeaseExpired, f"{kind} 0")]
    assert losses == [rj.LossReason.HANDED_BACK, loss, loss, loss]
    assert (fleet.start_count > 2) == (kind == "kills its worker")
    assert_good_are_done(journal)


FOLDING = {
    "never ends": "DeadlinePassed: no answer within 0.5 s",
    "raises": "ValueError: cannot fold this",
    "dies": "ChildDied: exit code -9",
}


def test_reducers_that_fail_in_a_sweeper_are_given_up_and_the_others_are_done(
    journal: rj.Journal, fleet: Fleet
) -> None:
    leases = begin_all(journal, *FOLDING)
    fleet.start("folding-sweeper", "worker")
    lose(journal, leases)

    until_settled(journal, fleet)

    for kind, why in FOLDING.items():
        quarantined = last_of(journal, Quarantined, f"{kind} 0")
        assert quarantined.cause is QuarantineCause.RAISED
        assert why_of(journal, quarantined) == why
        assert len(events_of(journal, StepFailed, f"{kind} 0")) == 2
        assert not was_touched(journal, f"{kind} 0")
    assert_good_are_done(journal)


def why_of(journal: rj.Journal, quarantined: Quarantined) -> str:
    """Its explanation, with what the error said, which is kept beside the log."""
    return f"{quarantined.explanation}: {said_last(journal, quarantined.originator_id)}"


def test_reducers_that_fail_in_a_claimer_are_given_up_and_the_others_are_done(
    journal: rj.Journal, fleet: Fleet
) -> None:
    leases = begin_all(journal, *FOLDING)
    fleet.start("sweeper", "folding-worker")
    lose(journal, leases)

    until_settled(journal, fleet)

    for kind, why in FOLDING.items():
        quarantined = last_of(journal, Quarantined, f"{kind} 0")
        assert quarantined.cause is QuarantineCause.RAISED
        assert why in why_of(journal, quarantined)
        assert len(events_of(journal, Dispatched, f"{kind} 0")) == 3
        assert not was_touched(journal, f"{kind} 0")
    assert_good_are_done(journal)


def test_a_reducer_that_is_not_deterministic_is_found_out_before_user_code_runs(
    journal: rj.Journal, fleet: Fleet
) -> None:
    leases = begin_all(journal, "draws")
    fleet.start("folding-sweeper", "folding-worker")
    lose(journal, leases)

    until_settled(journal, fleet)

    quarantined = last_of(journal, Quarantined, "draws 0")
    assert quarantined.cause is QuarantineCause.DIVERGED
    assert quarantined.found_digest != quarantined.expected_digest
    assert not was_touched(journal, "draws 0")
    assert len(events_of(journal, Confirmed, "draws 0")) == 1  # of the one who began it
    assert_good_are_done(journal)


def test_a_reducer_that_does_not_end_dies_with_its_sweeper(
    journal: rj.Journal, fleet: Fleet
) -> None:
    fleet.start("folding-sweeper")
    sweeper = psutil.Process(fleet.programs["folding-sweeper"].process.pid)
    lose(journal, [begin(journal, "never ends")])
    children: list[psutil.Process] = []

    def is_folding() -> bool:
        children.extend(sweeper.children())
        return bool(children)

    until(is_folding, "the reducer's process")
    fleet.programs["folding-sweeper"].kill()

    until(lambda: not any(map(is_alive, children)), "the end of the reducer's process")


GROW = """
UPDATE checkpoints
SET state = convert_to(repeat('x', %(size)s), 'UTF8'), state_digest = 'cs1:of a large one'
WHERE run_id = 'run ' || %(attempt_id)s
"""


def test_checkpoints_of_100_mb_are_refused_or_given_up_and_the_others_are_done(
    journal: rj.Journal, fleet: Fleet
) -> None:
    """One is in the store before its loss, one comes there before its claim, one is written."""
    stored, swelling = begin(journal, "good", 8), begin(journal, "good", 9)
    stored.checkpoint("small")
    swelling.checkpoint("small")
    change(journal, GROW, {"attempt_id": stored.attempt_id, "size": LARGE})
    fleet.start("folding-sweeper")
    lose(journal, [swelling])
    until(lambda: events_of(journal, ReadyForDispatch, swelling.attempt_id), "its recovery")
    change(journal, GROW, {"attempt_id": swelling.attempt_id, "size": LARGE})
    leases = begin_all(journal, "saves too much")
    fleet.start("folding-worker")
    lose(journal, [stored, *leases])

    until_settled(journal, fleet)

    for lease in (stored, swelling):
        quarantined = last_of(journal, Quarantined, lease.attempt_id)
        assert quarantined.cause is QuarantineCause.TOO_LARGE
        assert "has 100,000,000 bytes, the limit is 67,108,864 bytes" in quarantined.explanation
    refused = last_of(journal, LeaseEnded, "saves too much 0")
    assert refused.error_class == "InvalidInput"
    said = said_last(journal, "saves too much 0")
    assert "needed at most 67,108,864 bytes" in str(said)
    assert fleet.start_count == 2
    assert_good_are_done(journal)


def test_a_rolling_deploy_quarantines_nothing_until_the_old_workers_are_gone(
    journal: rj.Journal, fleet: Fleet
) -> None:
    fleet.start("sweeper", "worker 1", "worker 2")
    for number in range(3):
        pair = [
            begin(journal, "good", 2 * number + int(version) - 1, code_version=version)
            for version in "12"
        ]
        lose(journal, pair)
        until_settled(journal, fleet)
    assert set(statuses(journal).values()) == {"completed"}

    fleet.stop("worker 1")
    late = begin(journal, "good", 6, code_version="1")
    lose(journal, [late])
    until_settled(journal, fleet)

    quarantined = last_of(journal, Quarantined, late.attempt_id)
    assert quarantined.cause is QuarantineCause.CODE_CHANGED
    assert not was_touched(journal, late.attempt_id)
    journal.lift_quarantine(late.attempt_id, "accept_tip", **PERSON)
    until_settled(journal, fleet)
    assert statuses(journal)[late.attempt_id] == "completed"
