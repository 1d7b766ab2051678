"""A log of any length, as a fleet in a bad month would have written it: realistic, and the same
for the same seed.

Many attempts are under way at once, so the events of one stream stand apart in the log. Four
events to a recovery, on average: many losses of a foreign runtime are false alarms, some runs
crash again and again, the others are lost once and go on.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeAlias

import msgspec
from psycopg import Cursor
from psycopg.rows import DictRow

from domain.checkpoint import CheckpointRef
from domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    LiftOption,
    QuarantineCause,
    Quarantined,
    ReadyForDispatch,
    Replayed,
    StartPoint,
    TipStanding,
    WriteKind,
    tag_of,
)
from domain.lease import Actor, Fence, Holder, Incarnation, LeaseView, LossReason, Progress
from domain.replay import ReplayMode

LIVE_ATTEMPTS: Final = 500
"""How many attempts are under way at once."""

WORKER_COUNT: Final = 200
TTL_S: Final = 30.0
GRACE_S: Final = 5.0
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK_EVENTS: Final = 5_000

COPY: Final = "COPY journal_events (originator_id, originator_version, topic, state) FROM STDIN"

Story: TypeAlias = Iterator[AnyEvent]


def synthetic_events(seed: int) -> Iterator[AnyEvent]:
    """Events without end, in the order in which they were appended."""
    fleet = _Fleet(random.Random(seed))
    live = [fleet.new_story() for _ in range(LIVE_ATTEMPTS)]
    chance = fleet.chance
    while True:
        at = int(chance.random() * LIVE_ATTEMPTS)
        event = next(live[at], None)
        if event is None:
            live[at] = fleet.new_story()
        else:
            yield event


def append_synthetic_log(cursor: Cursor[DictRow], *, event_count: int, seed: int) -> None:
    """Append so many of them, in the caller's transaction; streams that exist are not expected."""
    events = synthetic_events(seed)
    encode = msgspec.json.Encoder().encode
    for begun in range(0, event_count, CHUNK_EVENTS):
        chunk = [next(events) for _ in range(min(CHUNK_EVENTS, event_count - begun))]
        rows = (
            f"{event.originator_id}\t{event.originator_version}\t{tag_of(event)}\t"
            f"\\\\x{encode(event).hex()}\n"
            for event in chunk
        )
        with cursor.copy(COPY) as copy:
            copy.write("".join(rows))


class _Fleet:
    """The workers, and what all stories share: chance and the clock."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = BEGINNING
        self.epoch = 0
        self.workers = [_worker(self.name(), no) for no in range(WORKER_COUNT)]
        self.sweeper = Actor(role="sweeper", host="sweeper-1", pid=4711, program="0.1.0")
        self.tellers = {
            holder.worker_id: Actor(
                role="worker",
                host=holder.incarnation.host,
                pid=holder.incarnation.pid,
                program="0.1.0",
                name=holder.worker_id,
            )
            for holder in self.workers
        }

    def name(self) -> str:
        return f"{self.chance.getrandbits(128):032x}"

    def worker(self) -> Holder:
        return self.workers[int(self.chance.random() * WORKER_COUNT)]

    def fence(self) -> Fence:
        self.epoch += 1
        return Fence(epoch=self.epoch, lease_id=self.name())

    def tick(self) -> datetime:
        self.now += timedelta(milliseconds=2)
        return self.now

    def new_story(self) -> Story:
        lot = self.chance.random()
        attempt = _Attempt(self)
        if lot < 0.50:
            return attempt.false_alarms(1 + int(self.chance.random() * 4))
        if lot < 0.65:
            return attempt.crash_loop()
        return attempt.lost_once()


class _Attempt:
    """One attempt, whose story is told event by event."""

    def __init__(self, fleet: _Fleet) -> None:
        self._fleet = fleet
        name = fleet.name()
        self._id = f"attempt-{name}"
        self._run = f"run-{name[:24]}"
        self._kind = ("import", "training", "report")[int(fleet.chance.random() * 3)]
        self._tenant = f"tenant-{int(fleet.chance.random() * 40)}"
        self._priority = int(fleet.chance.random() * 3)
        self._version = 0
        self._recovery_no = 0
        self._ordinal = 0
        self._holder = fleet.worker()
        self._fence = fleet.fence()
        self._input = _digest(self._run)

    def false_alarms(self, count: int) -> Story:
        """A foreign lease that was renewed late, again and again."""
        yield self._granted()
        for _ in range(count):
            lost = self._lost(is_foreign=True)
            yield lost
            yield self._renewed(lost)

    def crash_loop(self) -> Story:
        """A run that takes its worker down every time."""
        yield self._granted()
        for _ in range(5):
            yield from self._recovered()
        yield self._lost()
        yield self._quarantined()

    def lost_once(self) -> Story:
        """Lost, recovered, confirmed, completed."""
        yield self._granted()
        yield from self._recovered()
        yield self._confirmed()
        yield self._completed()

    def _recovered(self) -> Story:
        yield self._lost()
        yield self._reloaded()
        yield self._replayed()
        yield self._ready()
        yield self._dispatched()

    # -- single events ---------------------------------------------------------------------

    def _granted(self) -> LeaseGranted:
        return LeaseGranted(
            **self._said(by=self._fleet.tellers[self._holder.worker_id]),
            holder=self._holder,
            fence=self._fence,
            ttl_s=TTL_S,
            kind=self._kind,
            code_version="2026.1",
            attempt_no=1,
            input_digest=self._input,
            tenant=self._tenant,
            priority=self._priority,
        )

    def _lost(self, *, is_foreign: bool = False) -> LeaseExpired:
        self._recovery_no += 1
        self._ordinal += 5
        now = self._fleet.tick()
        view = LeaseView(
            attempt_id=self._id,
            run_id=self._run,
            kind=self._kind,
            holder=self._holder,
            fence=self._fence,
            granted_at=now - timedelta(minutes=7),
            renewed_at=now - timedelta(seconds=TTL_S + GRACE_S),
            expires_at=now - timedelta(seconds=GRACE_S),
            seen_at=now,
            ttl_s=TTL_S,
            grace_s=GRACE_S,
            progress=Progress(ordinal=self._ordinal, digest=self._chain(), checkpoint_count=1),
            is_confirmed=True,
            code_version="2026.1",
        )
        if not is_foreign:
            self._fence = self._fleet.fence()
        return LeaseExpired(
            **self._said(reason="its lease was not renewed in time"),
            lease=view,
            loss=LossReason.TTL,
            recovery_no=self._recovery_no,
            fence=None if is_foreign else self._fence,
            tenant=self._tenant,
        )

    def _renewed(self, lost: LeaseExpired) -> Abandoned:
        return Abandoned(
            **self._said(reason="renewed after all"),
            recovery_no=self._recovery_no,
            why=AbandonReason.RENEWED_LATE,
            fence=self._fence,
            lease=lost.lease,
        )

    def _reloaded(self) -> CheckpointReloaded:
        return CheckpointReloaded(
            **self._said(),
            recovery_no=self._recovery_no,
            ref=CheckpointRef(run_id=self._run, checkpoint_no=self._recovery_no),
            ordinal=self._ordinal - 5,
            digest=_digest(f"{self._run} {self._ordinal - 5}"),
            input_digest=self._input,
            standing=TipStanding.EQUAL,
            to_ordinal=self._ordinal,
            state_digest=_digest(f"state {self._run} {self._ordinal - 5}"),
            written_by_epoch=self._fence.epoch,
            code_version="2026.1",
        )

    def _replayed(self) -> Replayed:
        return Replayed(
            **self._said(),
            recovery_no=self._recovery_no,
            mode=ReplayMode.CHAIN,
            from_ordinal=self._ordinal - 4,
            to_ordinal=self._ordinal,
            digest=self._chain(),
            expected_digest=self._chain(),
            expected_from="heartbeat",
        )

    def _ready(self) -> ReadyForDispatch:
        return ReadyForDispatch(
            **self._said(),
            recovery_no=self._recovery_no,
            start=StartPoint.TIP,
            attempt_no=1,
            kind=self._kind,
            priority=self._priority,
            ready_at=self._fleet.tick(),
            tenant=self._tenant,
            code_version="2026.1",
        )

    def _dispatched(self) -> Dispatched:
        self._holder, self._fence = self._fleet.worker(), self._fleet.fence()
        return Dispatched(
            **self._said(by=self._fleet.tellers[self._holder.worker_id]),
            recovery_no=self._recovery_no,
            holder=self._holder,
            fence=self._fence,
            ttl_s=TTL_S,
            dispatch_id=self._fleet.name(),
        )

    def _confirmed(self) -> Confirmed:
        return Confirmed(
            **self._said(by=self._fleet.tellers[self._holder.worker_id]),
            fence=self._fence,
            write=WriteKind.HEARTBEAT,
            ordinal=self._ordinal,
        )

    def _completed(self) -> LeaseEnded:
        return LeaseEnded(
            **self._said(by=self._fleet.tellers[self._holder.worker_id]),
            ending=Ending.COMPLETED,
            fence=self._fence,
            result_digest=_digest(f"result {self._run}"),
        )

    def _quarantined(self) -> Quarantined:
        return Quarantined(
            **self._said(),
            recovery_no=self._recovery_no,
            cause=QuarantineCause.CRASH_LOOP,
            explanation=f"{self._recovery_no} recoveries without progress",
            options=(LiftOption.RETRY, LiftOption.RESTART),
            kind=self._kind,
            tenant=self._tenant,
        )

    def _chain(self) -> str:
        return _digest(f"{self._run} {self._ordinal}")

    def _said(self, *, by: Actor | None = None, reason: str = "") -> dict[str, Any]:
        self._version += 1
        return {
            "originator_id": self._id,
            "originator_version": self._version,
            "event_id": self._fleet.name(),
            "run_id": self._run,
            "recorded_by": by or self._fleet.sweeper,
            "reason": reason,
        }


def _worker(boot_id: str, no: int) -> Holder:
    life = Incarnation(host=f"host-{no // 8}", boot_id=boot_id, pid=1000 + no, started="8123.5")
    return Holder(worker_id=f"worker-{no}", incarnation=life)


def _digest(of: str) -> str:
    return f"sha256:{sha256(of.encode()).hexdigest()}"
