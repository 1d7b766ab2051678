"""The acts of a person in each status, and those that are refused."""

from collections.abc import Callable

import pytest

import recovery_journal as rj
from recovery_journal.domain.events import Resumed
from tests.rules.scenes import (
    OpenJournal,
    claim_one,
    events_of,
    held,
    make_ready,
    report,
    rows,
    types_of,
    worked,
)

BY = {"by": "on-call", "reason": "checked"}


class Gone(BaseException):
    pass


def recovering(open_journal: OpenJournal) -> rj.Lease:
    def die(_step: rj.StepTaken) -> None:
        raise Gone

    journal = open_journal(observer=die)
    lease = worked(held(journal))
    with pytest.raises(Gone):
        report(journal, lease)
    return lease


def ready(open_journal: OpenJournal) -> rj.Lease:
    return make_ready(open_journal(), "a-1")


def waiting(open_journal: OpenJournal) -> rj.Lease:
    lease = worked(held(open_journal()))
    lease.wait("inspect it")
    return lease


def quarantined(open_journal: OpenJournal) -> rj.Lease:
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, policy=rj.Policy(crash_loop_count=1)))
    return make_ready(journal, "a-1")


def completed(open_journal: OpenJournal) -> rj.Lease:
    lease = held(open_journal())
    lease.complete()
    return lease


def failed(open_journal: OpenJournal) -> rj.Lease:
    lease = held(open_journal())
    lease.fail("broken")
    return lease


OPEN: dict[str, Callable[[OpenJournal], rj.Lease]] = {
    "held": lambda open_journal: worked(held(open_journal())),
    "recovering": recovering,
    "ready": ready,
    "waiting": waiting,
    "quarantined": quarantined,
}
ENDED = {"completed": completed, "failed": failed}


@pytest.mark.parametrize("status", OPEN)
def test_an_open_attempt_is_cancelled_for_good(open_journal: OpenJournal, status: str) -> None:
    journal, lease = open_journal(), OPEN[status](open_journal)
    assert rows(journal, "SELECT status FROM leases") == [{"status": status}]

    recovery = journal.cancel("a-1", **BY)

    assert recovery.stage is rj.Stage.ENDED
    assert rows(journal, "SELECT status FROM leases") == [{"status": "cancelled"}]
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    assert journal.sweep() == []
    assert journal.claim(worker_id="w-2") == []
    ended = next(e.event for e in journal.history("a-1") if e.event.recorded_by.role == "person")
    assert (ended.recorded_by.name, ended.reason) == ("on-call", "checked")


def test_a_cancel_is_idempotent(journal: rj.Journal) -> None:
    held(journal)

    for _ in range(2):
        journal.cancel("a-1", **BY)

    assert types_of(journal) == ["LeaseGranted", "LeaseEnded"]


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_attempt_is_not_cancelled(open_journal: OpenJournal, status: str) -> None:
    journal, _lease = open_journal(), ENDED[status](open_journal)

    with pytest.raises(rj.WrongStage, match="it has ended already"):
        journal.cancel("a-1", **BY)


@pytest.mark.parametrize("status", [status for status in OPEN if status != "waiting"])
def test_only_a_waiting_attempt_is_resumed(open_journal: OpenJournal, status: str) -> None:
    journal, _lease = open_journal(), OPEN[status](open_journal)
    before = types_of(journal)

    with pytest.raises(rj.WrongStage, match="needed waiting"):
        journal.resume("a-1", **BY)

    assert types_of(journal) == before


@pytest.mark.parametrize("status", [status for status in OPEN if status != "quarantined"])
def test_only_a_quarantine_is_lifted(open_journal: OpenJournal, status: str) -> None:
    journal, _lease = open_journal(), OPEN[status](open_journal)
    before = types_of(journal)

    with pytest.raises(rj.WrongStage, match="needed quarantined"):
        journal.lift_quarantine("a-1", "retry", **BY)

    assert types_of(journal) == before


def test_a_waiting_attempt_is_not_dispatched_until_it_is_resumed(journal: rj.Journal) -> None:
    worked(held(journal)).wait("inspect it")
    assert journal.sweep() == []
    assert journal.claim(worker_id="w-2") == []

    swept = journal.resume("a-1", **BY)

    assert swept.is_ready
    assert events_of(journal, Resumed)[0].recorded_by.name == "on-call"
    claim = claim_one(journal)
    assert claim.state == {"sum": 1}
    claim.lease.complete("done")


def test_an_attempt_may_wait_again(journal: rj.Journal) -> None:
    held(journal).wait("first")
    journal.resume("a-1", **BY)

    claim_one(journal).lease.wait("second")
    journal.resume("a-1", **BY)

    claim_one(journal).lease.complete()


@pytest.mark.parametrize("act", ["cancel", "resume"])
def test_an_unknown_attempt_is_refused(journal: rj.Journal, act: str) -> None:
    with pytest.raises(rj.UnknownAttempt, match="check the id or acquire it first"):
        getattr(journal, act)("no-one's", **BY)
    with pytest.raises(rj.UnknownAttempt):
        journal.lift_quarantine("no-one's", "retry", **BY)


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("who", ""), ("who", "  "), ("\0", "why")])
def test_a_persons_act_needs_a_name_and_a_reason(journal: rj.Journal, by: str, reason: str) -> None:
    held(journal)

    with pytest.raises(rj.InvalidInput):
        journal.cancel("a-1", by=by, reason=reason)

    assert types_of(journal) == ["LeaseGranted"]
