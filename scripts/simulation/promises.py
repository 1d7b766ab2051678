"""The invariants after every commit of any process, and those at the end.

The oracle knows the contents of the database and the acknowledgements of workers, and nothing else.
It has its own idea of an owner: the epoch that a lease row had before a write.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from msgspec import Struct

import recovery_journal as rj
from recovery_journal.domain import events
from recovery_journal.domain.errors import PayloadCorrupt
from recovery_journal.domain.lease import Fence, LeaseStatus, LossReason
from recovery_journal.domain.recovery import Recovery, evolve
from recovery_journal.log.mapper import decode
from scripts.simulation.server import Monitor
from scripts.simulation.world import Violation

# After each commit, in one round trip. A run is small, so everything is checked each time.
EVENTS: Final = """
SELECT originator_id AS stream, originator_version AS version, topic AS tag, state,
    notification_id AS position
FROM journal_events
ORDER BY notification_id
"""
CHECKPOINTS: Final = "SELECT run_id, checkpoint_no, epoch FROM checkpoints WHERE state IS NOT NULL"
STEPS: Final = "SELECT run_id, ordinal, epoch, output FROM run_steps"
LEASES: Final = """
SELECT attempt_id, run_id, status, version, epoch, lease_id
FROM leases
ORDER BY attempt_id
"""
STARTED: Final = "SELECT to_timestamp(last_value / 1e6) AS at FROM simulated_start"

Row: TypeAlias = Any
"""A row as it was seen, with its columns as attributes."""

STEP_BEFORE: Final[dict[type[events.AnyEvent], str]] = {
    events.CheckpointReloaded: "expired",
    events.Replayed: "reloaded",
    events.ReadyForDispatch: "replayed",
    events.Dispatched: "ready",
    events.LeaseExpired: "held",
}
"""Each step of the pipeline follows the one before; a foreign lease is not in these runs."""


class Acknowledged(Struct, frozen=True):
    """A run step whose record was acknowledged to a worker, and under which epoch."""

    output: bytes
    epoch: int


class Stream:
    """One attempt's events as far as they were seen."""

    def __init__(self) -> None:
        self.recovery: Recovery | None = None
        self.epoch = 0


class Promises:
    """Everything seen and acknowledged in one run. Its methods raise `Violation`."""

    def __init__(self, monitor: Monitor, limits: rj.Limits) -> None:
        self._monitor = monitor
        self._limits = limits
        self._is_clock_steady = True
        self._damaged: set[str] = set()
        self._started_at = datetime.max.replace(tzinfo=UTC)
        self._leases: dict[str, Row] = {}
        self._steps: dict[tuple[str, int], Row] = {}
        self._streams: dict[str, Stream] = {}
        self._seen: set[int] = set()
        self._checkpoints: set[tuple[str, int]] = set()
        self._acknowledged: dict[tuple[str, int], Acknowledged] = {}
        self._completed: set[str] = set()

    def look(self) -> None:
        """Compare what the server holds with what it held before the last commit."""
        started, log, checkpoints, steps, leases = self._monitor.seen(
            STARTED, EVENTS, CHECKPOINTS, STEPS, LEASES
        )
        self._started_at = started[0].at
        self._take_in(log)
        self._require_saved(checkpoints)
        self._require_owned(steps)
        self._require_agreed(leases)

    def doubt_clock(self) -> None:
        """The server's clock was set, so times from before and after it do not compare."""
        self._is_clock_steady = False

    def doubt_tip(self, run_id: str) -> None:
        """A checkpoint of that run was damaged, so its attempts may be quarantined for it."""
        self._damaged.add(run_id)

    def require_doubted(self, run_id: str, problem: PayloadCorrupt) -> None:
        """Damage of a checkpoint was reported to a worker, so it has to be damaged."""
        if run_id not in self._damaged:
            self._fail(f"{problem} although nothing of run {run_id} was damaged")

    def acknowledge_step(self, lease: rj.Lease, output: bytes) -> None:
        """The record of a worker's newest run step was acknowledged."""
        key = (lease.run_id, lease.progress.ordinal)
        self._acknowledged[key] = Acknowledged(output, lease.fence.epoch)
        self._require_recorded(key)

    def acknowledge_completion(self, lease: rj.Lease) -> None:
        """The completion of an attempt was acknowledged to its worker."""
        self._completed.add(lease.attempt_id)

    def receive(self, claim: rj.Claim) -> None:
        """A worker was handed an attempt: nothing that owners before it were acknowledged may be
        missing. Of what came after it nothing is said: it may hear of its claim when it is over."""
        run_id, epoch = claim.lease.run_id, claim.lease.fence.epoch
        earlier = [
            no
            for (run, no), step in self._acknowledged.items()
            if run == run_id and step.epoch < epoch
        ]
        newest = max(earlier, default=0)
        if claim.checkpoint.tip_ordinal < newest:
            self._fail(
                f"{claim.lease!r} was handed run {run_id} up to run step "
                f"{claim.checkpoint.tip_ordinal}, although {newest} was acknowledged"
            )

    def end(self) -> None:
        """Check the invariants of the end, when all actors are at rest."""
        self.look()
        for key in self._acknowledged:
            self._require_recorded(key)
        for attempt_id in self._completed:
            status = self._leases[attempt_id].status
            if status != LeaseStatus.COMPLETED:
                self._fail(f"attempt {attempt_id} was completed, and is {status} now")

    @property
    def event_count(self) -> int:
        """How many events were seen."""
        return len(self._seen)

    @property
    def statuses(self) -> dict[str, LeaseStatus]:
        """By attempt, where it stands."""
        return {lease.attempt_id: LeaseStatus(lease.status) for lease in self._leases.values()}

    def _take_in(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.position in self._seen:
                continue
            self._seen.add(row.position)
            stream = self._streams.setdefault(row.stream, Stream())
            event = decode(**row._asdict())
            before = stream.recovery
            if row.version != (before.version if before else 0) + 1:
                self._fail(f"{row.stream} has version {row.version} out of its order")
            needed = STEP_BEFORE.get(type(event))
            if needed is not None and (before is None or before.stage != needed):
                stage = before.stage if before else "nothing"
                self._fail(f"{row.stream} went from {stage} to {row.tag}")
            fence = _granted_by(event)
            if fence is not None:
                if fence.epoch <= stream.epoch:
                    self._fail(f"{row.stream} got epoch {fence.epoch} after {stream.epoch}")
                stream.epoch = fence.epoch
            if isinstance(event, events.LeaseExpired):
                self._require_evidence(event)
            if isinstance(event, events.Quarantined) and before is not None:
                self._require_cause(event, before.run_id)
            stream.recovery = evolve(before, event)

    def _require_evidence(self, event: events.LeaseExpired) -> None:
        """No worker is declared dead too early, and its progress is recorded as it was."""
        lease = event.lease
        grace, ttl = timedelta(seconds=lease.grace_s), timedelta(seconds=lease.ttl_s)
        if event.loss is LossReason.TTL:
            if lease.seen_at <= lease.expires_at + grace:
                self._fail(f"{lease} was declared lost before its grace had passed")
            if lease.seen_at < self._started_at + ttl + grace:
                self._fail(f"{lease} was declared lost right after an outage")
        if event.session is not None and self._is_clock_steady:
            session_grace = timedelta(seconds=self._limits.session_grace_s)
            if lease.seen_at < event.session.gone_at + session_grace:
                self._fail(f"{event.session} was believed before its grace had passed")
        recorded = max((no for run, no in self._steps if run == lease.run_id), default=0)
        if lease.progress is not None and lease.progress.ordinal != recorded:
            self._fail(f"{lease} names another progress than run step {recorded}")

    def _require_cause(self, event: events.Quarantined, run_id: str) -> None:
        """No attempt is quarantined without a reason: crashes of these runs may look like a loop,
        and every other cause has to be a damaged checkpoint."""
        if event.cause is not events.QuarantineCause.CRASH_LOOP and run_id not in self._damaged:
            self._fail(f"{event} although nothing of run {run_id} was damaged")

    @property
    def _owners(self) -> dict[str, int]:
        """By run, the epoch of its owner before the last commit."""
        return {
            lease.run_id: lease.epoch
            for lease in self._leases.values()
            if lease.status == LeaseStatus.HELD
        }

    def _require_saved(self, checkpoints: Iterable[Row]) -> None:
        """A new checkpoint was written by the owner of its attempt just before."""
        owners = self._owners
        for one in checkpoints:
            key = (one.run_id, one.checkpoint_no)
            if key not in self._checkpoints and owners.get(one.run_id) != one.epoch:
                self._fail(f"{one} was accepted, although the owner was {owners.get(one.run_id)}")
            self._checkpoints.add(key)

    def _require_owned(self, steps: Iterable[Row]) -> None:
        """A new run step was written by the owner of its attempt just before."""
        held = self._owners
        found = {(step.run_id, step.ordinal): step for step in steps}
        for key, step in found.items():
            before = self._steps.get(key)
            if before is None and held.get(step.run_id) != step.epoch:
                self._fail(f"{step} was accepted, although the owner was {held.get(step.run_id)}")
            if before is not None and before != step:
                self._fail(f"{before} was overwritten with {step}")
        if missing := self._steps.keys() - found.keys():
            self._fail(f"run steps {sorted(missing)} are gone")
        self._steps = found

    def _require_agreed(self, leases: Iterable[Row]) -> None:
        """Each lease row says what its stream says, and its epoch never falls."""
        found = {lease.attempt_id: lease for lease in leases}
        for lease in found.values():
            before = self._leases.get(lease.attempt_id)
            if before is not None and lease.epoch < before.epoch:
                self._fail(f"{lease} fell back from epoch {before.epoch}")
            recovery = self._streams[lease.attempt_id].recovery
            assert recovery is not None
            is_same = recovery.fence == Fence(epoch=lease.epoch, lease_id=lease.lease_id)
            # Between two steps of a recovery only the stream moves on.
            is_moving = lease.status == LeaseStatus.RECOVERING
            is_newest = recovery.version == lease.version
            if not is_same or not (is_newest or (is_moving and lease.version < recovery.version)):
                self._fail(
                    f"{lease} is not what its stream says: {recovery.fence}, {recovery.version}"
                )
        self._leases = found

    def _require_recorded(self, key: tuple[str, int]) -> None:
        step = self._steps.get(key)
        if step is None or step.output != self._acknowledged[key].output:
            self._fail(f"run step {key} was acknowledged, and {step} is recorded")

    def _fail(self, what: str) -> None:
        raise Violation(what)


def _granted_by(event: events.AnyEvent) -> Fence | None:
    """The fence that an event grants; some only mention the one they were made under."""
    granting = (
        events.LeaseGranted,
        events.LeaseExpired,
        events.Seized,
        events.Dispatched,
        events.QuarantineLifted,
        events.Resumed,
    )
    return event.fence if isinstance(event, granting) else None
