"""Several sweepers at once, and heartbeats that come late: one recovery for one loss."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import (
    CheckpointReloaded,
    Dispatched,
    LeaseExpired,
    ReadyForDispatch,
    Replayed,
    Seized,
    SeizeReason,
)
from recovery_journal.domain.pipeline import RecoveryStep
from tests.rules.scenes import (
    SHORT,
    OpenJournal,
    aside,
    at_once,
    change,
    claim_one,
    events_of,
    held,
    report,
    rows,
    session,
    sweep_until,
    types_of,
    until,
    until_passed,
    worked,
)

ONE_RECOVERY = [LeaseExpired, CheckpointReloaded, Replayed, ReadyForDispatch]
# Long silent; the TTL is short because no lease is lost within one TTL of the server's start.
SILENT = """
UPDATE leases
SET expires_at = clock_timestamp() - interval '1 hour', ttl_s = 0.1
"""


def limits(**changes: float) -> rj.Limits:
    return rj.Limits(ttl_s=60.0, **{"grace_s": 0.0, **changes})  # type: ignore[arg-type]  # numbers


def test_two_sweepers_recover_every_attempt_exactly_once(open_journal: OpenJournal) -> None:
    few = limits(cohort_size=7)
    sweepers = [open_journal(limits=few) for _ in range(3)]
    attempts = [f"a-{number:03}" for number in range(60)]
    for attempt_id in attempts:
        worked(held(sweepers[0], attempt_id, worker_id="w-1", ttl=SHORT))
    until_passed(sweepers[0], attempts[-1])

    swept = [one for part in at_once([sweeper.sweep for sweeper in sweepers]) for one in part]
    # One that found only locked rows has left early; what is left is for the next sweep.
    swept += sweepers[0].sweep()

    assert Counter(one.attempt_id for one in swept if one.is_ready) == Counter(attempts)
    streams = {attempt_id: types_of(sweepers[0], attempt_id) for attempt_id in attempts}
    recovered = ["LeaseGranted", "Confirmed", *(event.__name__ for event in ONE_RECOVERY)]
    assert all(names == recovered for names in streams.values())


def test_a_sweep_takes_more_than_one_cohort(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=limits(cohort_size=2))
    for number in range(5):
        held(journal, f"a-{number}", worker_id="w-1")
    change(journal, SILENT)

    swept = journal.sweep()

    assert sorted(one.attempt_id for one in swept) == [f"a-{number}" for number in range(5)]


def test_a_lease_is_lost_only_after_ttl_and_grace(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=limits(grace_s=0.3))
    held(journal, ttl=SHORT)

    sweep_until(journal)

    (lost,) = events_of(journal, LeaseExpired)
    assert lost.lease.seen_at - lost.lease.expires_at > timedelta(seconds=0.3)
    assert (lost.loss, lost.lease.ttl_s, lost.lease.grace_s) == (rj.LossReason.TTL, 0.1, 0.3)


def test_a_live_lease_is_never_seized(journal: rj.Journal) -> None:
    held(journal)

    assert journal.sweep() == []
    assert types_of(journal) == ["LeaseGranted"]


def test_a_heartbeat_before_the_seize_keeps_the_lease(journal: rj.Journal) -> None:
    lease = held(journal, ttl=SHORT)
    until_passed(journal)
    change(journal, "UPDATE leases SET ttl_s = 60")

    lease.heartbeat()

    assert journal.sweep() == []
    assert types_of(journal) == ["LeaseGranted"]


def test_a_heartbeat_that_the_sweep_waited_for_keeps_the_lease(
    journal: rj.Journal, server_dsn: str
) -> None:
    lease = held(journal, ttl=SHORT)
    until_passed(journal)

    # The renewal holds the row's lock when the sweep looks, and commits afterwards.
    with session(journal, server_dsn) as renewal:
        renewal.execute(
            "UPDATE leases SET expires_at = clock_timestamp() + interval '60 s', ttl_s = 60"
        )
        swept = journal.sweep()
        renewal.commit()
        swept += journal.sweep()

    assert swept == []
    lease.heartbeat()
    assert types_of(journal) == ["LeaseGranted"]


def test_a_heartbeat_after_the_seize_is_refused(journal: rj.Journal) -> None:
    lease = held(journal, ttl=SHORT)
    sweep_until(journal)

    with pytest.raises(rj.LeaseLost, match=r"the lease with epoch \d+ is void, found ready"):
        lease.heartbeat()


def test_heartbeats_against_sweeps_leave_one_owner(journal: rj.Journal) -> None:
    leases = [held(journal, f"a-{number:02}", ttl=SHORT) for number in range(20)]
    until_passed(journal, leases[-1].attempt_id)

    def renew() -> list[str]:
        renewed = []
        for lease in leases:
            change(
                journal,
                "UPDATE leases SET ttl_s = 60 WHERE attempt_id = %(id)s",
                {"id": lease.attempt_id},
            )
            try:
                lease.heartbeat()
            except rj.LeaseLost:
                continue
            renewed.append(lease.attempt_id)
        return renewed

    def sweep() -> list[str]:
        return [one.attempt_id for one in journal.sweep()]

    renewed, swept = at_once([renew, sweep])

    assert sorted([*renewed, *swept]) == [lease.attempt_id for lease in leases]


def test_epochs_of_an_attempt_only_grow(journal: rj.Journal) -> None:
    lease = held(journal)
    for number in range(3):
        report(journal, lease)
        lease = claim_one(journal, f"w-{number}").lease

    events = [entry.event for entry in journal.history("a-1")]
    fences = [event.fence for event in events if isinstance(event, LeaseExpired | Dispatched)]
    assert all(
        earlier is not None and later is not None and earlier.epoch < later.epoch
        for earlier, later in pairwise(fences)
    )


@pytest.mark.parametrize("step", list(RecoveryStep.pipeline())[:3])
def test_a_recovery_whose_sweeper_is_gone_resumes_where_it_stood(
    open_journal: OpenJournal, step: RecoveryStep
) -> None:
    class Gone(BaseException):
        pass

    def die(taken: rj.StepTaken) -> None:
        if taken.step is step:
            raise Gone

    first, second = open_journal(observer=die), open_journal(limits=limits(sweeper_ttl_s=0.1))
    lease = worked(held(first))
    with pytest.raises(Gone):
        report(first, lease)
    change(first, SILENT)

    (swept,) = second.sweep()

    assert swept.is_ready
    (seized,) = events_of(second, Seized)
    assert seized.why is SeizeReason.SWEEPER_LOST
    assert seized.fence.epoch > seized.from_fence.epoch
    recovered = [event for event in types_of(second) if event in {e.__name__ for e in ONE_RECOVERY}]
    assert recovered == [event.__name__ for event in ONE_RECOVERY]


@pytest.mark.parametrize("step", list(RecoveryStep.pipeline())[:3])
def test_a_sweeper_that_was_only_paused_writes_nothing_more(
    open_journal: OpenJournal, step: RecoveryStep
) -> None:
    second = open_journal(limits=limits(sweeper_ttl_s=0.1))

    def overtake(taken: rj.StepTaken) -> None:
        if taken.step is step:
            change(second, SILENT)
            assert [one.is_ready for one in second.sweep()] == [True]

    first = open_journal(observer=overtake)
    lease = worked(held(first))

    (swept,) = report(first, lease)

    assert "another sweeper has taken it over" in swept.error
    assert types_of(second).count("ReadyForDispatch") == 1
    assert types_of(second)[-1] == "ReadyForDispatch"


def test_between_its_first_and_its_last_step_a_recovery_leaves_the_lease_row_alone(
    open_journal: OpenJournal,
) -> None:
    seen = []

    def look(_taken: rj.StepTaken) -> None:
        seen.append(rows(looker, "SELECT xmin::text, version FROM leases")[0])

    looker = open_journal()
    journal = open_journal(observer=look)
    report(journal, held(journal))

    versions = [row["version"] for row in seen]
    assert versions == [2, 2, 2, 5]
    assert len({row["xmin"] for row in seen[:3]}) == 1


def test_a_sweeper_at_work_is_not_overtaken(open_journal: OpenJournal) -> None:
    second = open_journal()
    found: list[rj.SweepResult] = []
    first = open_journal(observer=lambda _step: found.extend(second.sweep()))
    lease = worked(held(first))

    (swept,) = report(first, lease)

    assert swept.is_ready
    assert found == []


def test_a_threads_first_connection_is_no_reconnect(journal: rj.Journal) -> None:
    held(journal, ttl=SHORT)

    # Were it one, every sweep would give every lease another TTL, and nothing were ever lost.
    def sweep_in_a_new_thread() -> list[rj.SweepResult]:
        with aside(journal.sweep) as swept:
            return swept()

    until(sweep_in_a_new_thread, "the loss to be found")


def test_a_fleet_wide_loss_counts_against_no_run(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=limits(cohort_size=2, fleet_workers=3, fleet_share=0.5))
    for number in range(7):
        held(journal, f"a-{number}", worker_id=f"w-{number}")
    held(journal, "alive", worker_id="w-alive")
    change(journal, f"{SILENT} WHERE attempt_id <> 'alive'")

    journal.sweep()

    lost = [events_of(journal, LeaseExpired, f"a-{number}")[0] for number in range(7)]
    assert [event.is_fleet_wide for event in lost] == [True] * 7
    assert journal.recovery("a-0").recoveries_without_progress == 0


def test_a_loss_of_a_few_workers_of_many_counts(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=limits(fleet_workers=3, fleet_share=0.5))
    for number in range(7):
        held(journal, f"a-{number}", worker_id=f"w-{number}")
    change(journal, f"{SILENT} WHERE attempt_id < 'a-3'")

    journal.sweep()

    (lost,) = events_of(journal, LeaseExpired, "a-0")
    assert not lost.is_fleet_wide
    assert journal.recovery("a-0").recoveries_without_progress == 1
