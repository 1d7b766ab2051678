"""Many losses at once: sweepers share them, and what goes fast goes as safely."""

import os
from collections.abc import Callable
from itertools import pairwise

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import QuarantineCause, Quarantined, Replayed, StepFailed
from recovery_journal.domain.replay import ReplayMode
from recovery_journal.log.appender import FEW
from recovery_journal.postgres.database import Database
from recovery_journal.recovery.replayer import ASKED_AHEAD_COUNT
from recovery_journal.store.tips import INLINE_BYTES
from scripts.histories.lost import KIND, TAIL_STEPS, fill_lost, fold
from tests.rules.scenes import (
    OpenJournal,
    blocked_count,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    session,
    sum_up,
    types_of,
    until_passed,
    worked,
)

SILENT = """
UPDATE leases
SET expires_at = clock_timestamp() - interval '1 hour', ttl_s = 0.1
"""


def lose(journal: rj.Journal, count: int, **request: object) -> list[str]:
    """So many attempts whose worker is silent, in order."""
    attempts = [f"a-{number:03}" for number in range(count)]
    for attempt_id in attempts:
        worked(held(journal, attempt_id, worker_id="w-1", **request))
    change(journal, SILENT)
    return attempts


def ready(swept: list[rj.SweepResult]) -> list[str]:
    return [one.attempt_id for one in swept if one.is_ready]


def test_a_sweeper_passes_over_what_another_one_is_taking(
    open_journal: OpenJournal, server_dsn: str
) -> None:
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, grace_s=0.0, cohort_size=3))
    attempts = lose(journal, 7)

    with session(journal, server_dsn) as other:
        other.execute("SELECT FROM leases WHERE attempt_id <= 'a-002' FOR NO KEY UPDATE")
        assert ready(journal.sweep()) == attempts[3:]
        assert blocked_count(journal) == 0

    assert ready(journal.sweep()) == attempts[:3]


def test_what_was_locked_when_its_cohort_passed_is_checked_again(
    open_journal: OpenJournal, server_dsn: str
) -> None:
    watcher = open_journal()
    attempts = lose(watcher, 5)
    with session(watcher, server_dsn) as other:
        other.execute("SELECT FROM leases WHERE attempt_id = 'a-000' FOR NO KEY UPDATE")

        def let_go(_step: rj.StepTaken) -> None:
            other.rollback()

        few = rj.Limits(ttl_s=60.0, grace_s=0.0, cohort_size=2)
        swept = open_journal(limits=few, observer=let_go).sweep()

    assert sorted(ready(swept)) == attempts


def damage(journal: rj.Journal, statement: str) -> Callable[[rj.StepTaken], None]:
    """An observer that damages the store between the reload and the replay."""

    def observe(taken: rj.StepTaken) -> None:
        if taken.step is rj.RecoveryStep.CHECKPOINT_RELOAD:
            change(journal, statement)

    return observe


@pytest.mark.parametrize(
    "statement",
    [
        r"UPDATE run_steps SET output = '\x00' WHERE run_id = 'run of a-1' AND ordinal = 2",
        r"UPDATE checkpoints SET state = '\x00' WHERE run_id = 'run of a-1'",
        "DELETE FROM run_steps WHERE run_id = 'run of a-1' AND ordinal = 2",
    ],
)
def test_what_is_damaged_between_reload_and_replay_is_not_handed_out(
    open_journal: OpenJournal, statement: str
) -> None:
    journal = open_journal()
    sweeper = open_journal(observer=damage(journal, statement))
    report(sweeper, worked(held(journal)))

    assert journal.claim(worker_id="w-2") == []

    assert last_of(journal, Quarantined).cause is QuarantineCause.DIVERGED


def test_a_child_that_was_asked_ahead_and_dies_costs_one_run_a_try(
    open_journal: OpenJournal,
) -> None:
    doomed = "7"

    def die_on_one(state: object, name: str, output: object) -> object:
        if isinstance(state, dict) and state.get("dies"):
            os._exit(3)
        return sum_up(state, name, output)

    journal = open_journal(reducers={"sum": die_on_one})
    count = 2 * ASKED_AHEAD_COUNT
    for number in range(count):
        lease = held(journal, f"a-{number}", kind="sum", worker_id="w-1")
        lease.checkpoint({"sum": 0, "dies": str(number) == doomed})
        lease.record_step("step-1", {"n": number})
    change(journal, SILENT)

    swept = journal.sweep()

    assert len(ready(swept)) == count - 1
    assert last_of(journal, StepFailed, f"a-{doomed}").error_class == "ChildDied"
    claims = {claim.lease.attempt_id: claim for claim in journal.claim(worker_id="w", limit=100)}
    assert claims["a-40"].folded_state == {"sum": 40}


@pytest.mark.parametrize("size", [INLINE_BYTES // 2, 3 * INLINE_BYTES])
def test_payloads_of_any_size_are_replayed_and_handed_over(
    open_journal: OpenJournal, size: int
) -> None:
    journal = open_journal(reducers={"text": lambda state, _name, output: state + output})
    text = "x" * size
    lease = held(journal, kind="text", input=text)
    lease.checkpoint(text)
    lease.record_step("small", "y")
    lease.record_step("large", text)
    report(journal, lease)

    claim = claim_one(journal)

    assert events_of(journal, Replayed)[0].mode is ReplayMode.FOLD
    assert (claim.input, claim.state) == (text, text)
    assert [step.output for step in claim.tail] == ["y", text]
    assert claim.folded_state == f"{text}y{text}"


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_a_stream_that_has_moved_does_not_hold_up_a_cohort_of_any_size(
    open_journal: OpenJournal, count: int
) -> None:
    journal = open_journal()
    stale = held(journal, "a-000-stale", worker_id="w-0")
    attempts = lose(journal, count - 1)

    def refuse_one(taken: rj.StepTaken) -> None:
        # The old worker's write is refused, which moves the stream between two steps.
        if taken.step is rj.RecoveryStep.CHECKPOINT_RELOAD:
            with pytest.raises(rj.LeaseLost):
                stale.record_step("too late")

    swept = open_journal(observer=refuse_one).sweep()

    assert ready(swept) == sorted([*attempts, "a-000-stale"])
    assert "StaleWriteRefused" in types_of(journal, "a-000-stale")


def test_claimers_at_once_never_wait_for_each_other_and_each_keeps_the_order(
    open_journal: OpenJournal, server_dsn: str
) -> None:
    journal = open_journal()
    for number in range(12):
        held(journal, f"a-{number:02}", worker_id="w-1", priority=number % 3)
    change(journal, SILENT)
    journal.sweep()
    order = [row.attempt_id for row in journal.dispatch_ready()]

    with session(journal, server_dsn) as other:
        # Another claimer has the first four, and does not end.
        other.execute(
            "SELECT FROM leases WHERE attempt_id = ANY(%s) FOR NO KEY UPDATE", (order[:4],)
        )
        first = [claim.lease.attempt_id for claim in journal.claim(worker_id="w-2", limit=4)]
        second = [claim.lease.attempt_id for claim in journal.claim(worker_id="w-3", limit=4)]
        assert blocked_count(journal) == 0

    assert (first, second) == (order[4:8], order[8:])
    priorities = [int(attempt_id[2:]) % 3 for attempt_id in order]
    assert all(earlier >= later for earlier, later in pairwise(priorities))


def test_the_oldest_is_claimed_first_however_many_come_after_it(journal: rj.Journal) -> None:
    attempts = [f"{'zyx'[number % 3]}-{number}" for number in range(9)]
    claimed: list[str] = []
    for earlier, later in zip(attempts, [*attempts[1:], None], strict=True):
        if not claimed:
            report(journal, held(journal, earlier))
        if later:
            report(journal, held(journal, later))
        claimed.append(claim_one(journal, limit=1).lease.attempt_id)

    assert claimed == attempts


def test_a_fleet_of_the_benchmarks_is_in_step_with_its_log(
    open_journal: OpenJournal, server_dsn: str, schema: str
) -> None:
    journal = open_journal(reducers={KIND: fold})
    database = Database(server_dsn, schema)
    fill_lost(database, 40)
    database.close()

    swept = journal.sweep()

    assert len(ready(swept)) == 40
    claims = journal.claim(worker_id="w-2", limit=100)
    assert len(claims) == 40
    assert all(len(claim.tail) == TAIL_STEPS for claim in claims)
    assert claims[0].folded_state["sum"] == claims[0].state["sum"] + sum(range(TAIL_STEPS + 1))


@pytest.mark.parametrize("limit", [1, FEW + 1])
def test_a_claim_that_could_not_finish_is_nobodys_and_is_open_again_after_a_while(
    open_journal: OpenJournal, server_dsn: str, schema: str, limit: int
) -> None:
    make_ready(open_journal(), "a-1")
    database = Database(server_dsn, schema, lock_s=0.1)
    impatient = rj.Journal(database)

    with session(impatient, server_dsn) as other:
        other.execute("SELECT FROM projection_dispatch_ready FOR UPDATE")
        assert impatient.claim(worker_id="w-2", limit=limit) == []
        assert "locked" in str(impatient.quarantined()[0].error)

    assert types_of(impatient)[-1] == "ReadyForDispatch"
    until_passed(impatient, column="retry_at")
    assert claim_one(impatient, "w-3", limit=limit).lease.worker_id == "w-3"
    assert impatient.quarantined() == []
    database.close()
