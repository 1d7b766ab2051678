"""Any sequence of calls, by any number of workers, sweepers and people, on one journal."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from recovery_journal.domain.events import (
    Dispatched,
    LeaseExpired,
    LeaseGranted,
    QuarantineLifted,
    Resumed,
    Seized,
)
from recovery_journal.domain.lease import Fence
from recovery_journal.domain.pipeline import RecoveryStep
from tests.rules.in_step import assert_attempt_in_step
from tests.rules.scenes import OpenJournal, change, held, rows

LIMITS = rj.Limits(ttl_s=60.0, grace_s=0.0, sweeper_ttl_s=0.1, policy=rj.Policy(crash_loop_count=2))
BY = {"by": "on-call", "reason": "checked"}
FENCED = (LeaseGranted, LeaseExpired, Seized, Dispatched, QuarantineLifted, Resumed)
EXAMPLES = count(1)


class Died(Exception):
    pass


@dataclass
class Attempt:
    """The test's model of one attempt: every lease ever granted, and the one that is valid."""

    id: str
    leases: list[rj.Lease] = field(default_factory=list)
    valid: rj.Lease | None = None
    accepted: list[int] = field(default_factory=list)
    checkpoint_count: int = 0
    ended_by: tuple[rj.Lease, str] | None = None


class World:
    """One journal, seen by a sweeper that works and one that dies after a given step."""

    def __init__(self, open_journal: OpenJournal) -> None:
        self.dies_after: RecoveryStep | None = None
        self.journal = open_journal(limits=LIMITS)
        self.dying = open_journal(limits=LIMITS, observer=self._die)
        self.attempts: dict[str, Attempt] = {}

    def begin(self) -> None:
        """New attempts for the next example."""
        example = next(EXAMPLES)
        self.attempts = {name: Attempt(f"{example:04}-{name}") for name in "ab"}

    def acquire(self, attempt: Attempt) -> None:
        if attempt.leases:
            with pytest.raises(rj.AttemptExists):
                held(self.journal, attempt.id, kind=attempt.id)
            return
        self._grant(attempt, held(self.journal, attempt.id, kind=attempt.id))

    def write(self, attempt: Attempt, which: int, what: str) -> None:
        """A lease of any age writes: the valid one does, every other one is refused."""
        lease = _choose(attempt, which)
        if lease is None:
            return
        if lease is not attempt.valid:
            with pytest.raises(rj.LeaseLost):
                self._write(attempt, lease, what)
            return
        self._write(attempt, lease, what)
        if what == "record":
            attempt.accepted.append(lease.progress.ordinal)
        if what == "checkpoint":
            attempt.checkpoint_count += 1

    def end(self, attempt: Attempt, which: int, how: str) -> None:
        lease = _choose(attempt, which)
        if lease is None:
            return
        act = ENDINGS[how]
        if attempt.ended_by == (lease, how):
            act(lease)  # retried: no effect
        elif lease is attempt.valid:
            act(lease)
            attempt.valid = None
            attempt.ended_by = None if how == "hand_back" else (lease, how)
        else:
            with pytest.raises(rj.LeaseLost):
                act(lease)

    def report(self, attempt: Attempt, dies_after: RecoveryStep | None) -> None:
        """The worker dies; perhaps the sweeper that recovers it does too."""
        if attempt.valid is None:
            return
        self.dies_after = dies_after
        with suppress(Died):
            self.dying.report_lost(worker_id=attempt.valid.worker_id, reason="pod deleted")
        attempt.valid = None

    def sweep(self) -> None:
        """Another sweeper finds whatever is left, of this example."""
        silent = "UPDATE leases SET expires_at = clock_timestamp() - interval '1 h' WHERE status = 'recovering'"  # noqa: E501
        change(self.journal, silent)
        self.journal.sweep()

    def claim(self, attempt: Attempt) -> None:
        claims = self.journal.claim(worker_id=f"claimer of {attempt.id}", kinds=[attempt.id])
        for claim in claims:
            assert attempt.valid is None
            self._grant(attempt, claim.lease)
            tip = claim.checkpoint
            assert tip.tip_ordinal == len(attempt.accepted)
            assert tip.newest_no == attempt.checkpoint_count
            assert claim.lease.progress == tip.progress

    def intervene(self, attempt: Attempt, act: str) -> None:
        refusals = (rj.UnknownAttempt, rj.WrongStage, rj.InvalidInput)
        with suppress(*refusals):
            PEOPLE[act](self.journal, attempt.id)
            if act == "cancel":
                attempt.valid = None
            if act in ("cancel", "resume"):  # what its worker had decided counts no longer
                attempt.ended_by = None

    def check(self) -> None:
        """The invariants, after every call."""
        for attempt in self.attempts.values():
            if not attempt.leases:
                continue
            assert_attempt_in_step(self.journal, attempt.id)
            epochs = [fence.epoch for fence in fences_of(self.journal, attempt.id)]
            assert all(earlier < later for earlier, later in pairwise(epochs))
            (row,) = rows(
                self.journal,
                "SELECT status, epoch FROM leases WHERE attempt_id = %(id)s",
                {"id": attempt.id},
            )
            owner = attempt.valid.fence.epoch if attempt.valid else None
            assert (row["epoch"] if row["status"] == "held" else None) == owner
            stored = rows(
                self.journal,
                "SELECT ordinal FROM run_steps WHERE run_id = %(run)s ORDER BY ordinal",
                {"run": f"run of {attempt.id}"},
            )
            assert [step["ordinal"] for step in stored] == attempt.accepted

    def _grant(self, attempt: Attempt, lease: rj.Lease) -> None:
        attempt.leases.append(lease)
        attempt.valid = lease
        attempt.ended_by = None

    def _write(self, attempt: Attempt, lease: rj.Lease, what: str) -> None:
        WRITES[what](lease, len(attempt.accepted))

    def _die(self, taken: rj.StepTaken) -> None:
        if taken.step is self.dies_after:
            raise Died


WRITES: dict[str, Callable[[rj.Lease, int], object]] = {
    "heartbeat": lambda lease, _count: lease.heartbeat(),
    "announce": lambda lease, _count: lease.begin_step("add"),
    "record": lambda lease, count: lease.record_step("add", {"n": count}),
    "checkpoint": lambda lease, count: lease.checkpoint({"at": count}),
}
ENDINGS: dict[str, Callable[[rj.Lease], object]] = {
    "complete": lambda lease: lease.complete("done"),
    "fail": lambda lease: lease.fail("broken"),
    "wait": lambda lease: lease.wait("inspect it"),
    "hand_back": lambda lease: lease.hand_back("draining"),
}
PEOPLE: dict[str, Callable[[rj.Journal, str], object]] = {
    "cancel": lambda journal, id_: journal.cancel(id_, **BY),
    "resume": lambda journal, id_: journal.resume(id_, **BY),
    "lift": lambda journal, id_: journal.lift_quarantine(id_, "retry", **BY),
}


def fences_of(journal: rj.Journal, attempt_id: str) -> list[Fence]:
    events = [entry.event for entry in journal.history(attempt_id)]
    return [event.fence for event in events if isinstance(event, FENCED) and event.fence]


def _choose(attempt: Attempt, which: int) -> rj.Lease | None:
    """The newest lease most of the time, and now and then an old one."""
    return attempt.leases[-1 - which % len(attempt.leases)] if attempt.leases else None


NAMES = st.sampled_from("ab")
WHICH = st.sampled_from([0, 0, 0, 1, 2])
CALLS = st.one_of(
    st.tuples(st.just("acquire"), NAMES),
    st.tuples(st.just("write"), NAMES, WHICH, st.sampled_from(sorted(WRITES))),
    st.tuples(st.just("write"), NAMES, WHICH, st.just("record")),
    st.tuples(st.just("end"), NAMES, WHICH, st.sampled_from(sorted(ENDINGS))),
    st.tuples(st.just("report"), NAMES, st.sampled_from([None, *RecoveryStep.pipeline()])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("claim"), NAMES),
    st.tuples(st.just("intervene"), NAMES, st.sampled_from(sorted(PEOPLE))),
)


def test_any_sequence_of_calls_keeps_one_owner_and_every_step(open_journal: OpenJournal) -> None:
    world = World(open_journal)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(st.lists(CALLS, min_size=5, max_size=25))
    def keeps(calls: list[tuple[object, ...]]) -> None:
        world.begin()
        world.acquire(world.attempts["a"])
        for name, *given_ in calls:
            arguments = [world.attempts.get(str(given_[0])), *given_[1:]] if given_ else []
            getattr(world, str(name))(*arguments)
            world.check()

    keeps()
