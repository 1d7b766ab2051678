"""Logs for tests: what real commands make of what workers, sweepers and persons ask for."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from recovery_journal.domain.commands.lease import (
    confirm,
    dispatch,
    end,
    grant,
    refuse,
    seize,
    time_out,
)
from recovery_journal.domain.commands.operator import cancel, lift, resume
from recovery_journal.domain.commands.pipeline import abandon, expire, make_ready, reload, replay
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.errors import LeaseLost, Refused
from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    Ending,
    LiftOption,
    SeizeReason,
    WriteKind,
)
from recovery_journal.domain.lease import Actor, Fence, LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Decision, Recovery, Stage, evolve, fold
from recovery_journal.domain.replay import ReplayResult, replay_chain
from recovery_journal.projections.projection import Projection, Record, RowT
from tests.domain.specimens import (
    INPUT_DIGEST,
    NOW,
    SWEEPER,
    checkpoint,
    holder,
    lease_view,
    problem,
    progress,
    run_input,
)

BEGINNING = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
TIPS = (checkpoint(), checkpoint(5, checkpoint_no=2, tail_count=0), run_input(tail_count=2))
STRANGE_TIPS = (checkpoint(is_terminal=True), checkpoint(is_waiting=True), problem())
REPORTS: tuple[Progress | None, ...] = (None, progress(2), progress(5), progress(9, 3))
WORKERS = ("w-1", "w-2", "w-ü")


class Life:
    """One attempt. Every act is what the domain's commands answer to a random wish; a refused
    wish leaves no event."""

    def __init__(self, attempt_id: str, chance: Random) -> None:
        self.chance = chance
        self.policy = Policy(is_timeout_quarantined=chance.random() < 0.5, crash_loop_count=3)
        self.epoch = 1
        self.attempt_id = attempt_id
        self.worker = chance.choice(WORKERS)
        self.events: list[AnyEvent] = [self._granted()]
        self.recovery: Recovery = evolve(None, self.events[0])

    def act(self) -> None:
        """Go on in the pipeline, most of the time, or do what may come between."""
        step = self._next_step() if self.chance.random() < 0.75 else self._interruption()
        try:
            events = step()
        except (Refused, LeaseLost):
            return
        self.events += events
        self.recovery = fold(self.recovery, events)

    def _granted(self) -> AnyEvent:
        return grant(
            self._decision(is_worker=True),
            attempt_id=self.attempt_id,
            run_id=f"run of {self.attempt_id}",
            holder=holder(self.worker),
            fence=self._fence(),
            ttl_s=30.0,
            kind=self.chance.choice(["report", "mail"]),
            code_version="1.4",
            attempt_no=1,
            input_digest=INPUT_DIGEST,
            tenant=self.chance.choice(["", "acme"]),
            priority=self.chance.choice([0, 0, 5, -1]),
            timeout_s=60.0,
        )

    def _next_step(self) -> Callable[[], tuple[AnyEvent, ...]]:
        now = self.recovery
        match now.stage:
            case Stage.HELD:
                return self.chance.choice([self._lose, self._lose, self._write])
            case Stage.EXPIRED:
                tip = self.chance.choice(TIPS)
                return lambda: reload(now, self._decision(), tip, policy=self.policy, now=NOW)
            case Stage.RELOADED:
                return self._replay
            case Stage.REPLAYED:
                return lambda: make_ready(now, self._decision(), now=NOW)
            case Stage.READY:
                return self._dispatch
            case _:
                return self._intervene

    def _interruption(self) -> Callable[[], tuple[AnyEvent, ...]]:
        now, chance = self.recovery, self.chance
        tip = chance.choice(STRANGE_TIPS)
        ending = chance.choice([Ending.COMPLETED, Ending.FAILED, Ending.WAITING])
        wishes: list[Callable[[], tuple[AnyEvent, ...]]] = [
            lambda: seize(now, self._decision(), fence=self._fence(), why=SeizeReason.SWEEPER_LOST),
            lambda: reload(now, self._decision(), tip, policy=self.policy, now=NOW),
            lambda: refuse(
                now, self._decision(is_worker=True), chance.choice([*WriteKind]), lease_view().fence
            ),
            lambda: end(now, self._decision(is_worker=True), ending, message="no\0thing \u2028 \\"),
            lambda: time_out(now, self._decision(), self.policy),
            lambda: cancel(now, self._decision()),
            lambda: abandon(
                now,
                self._decision(),
                chance.choice([*AbandonReason]),
                lease=now.lost.lease if now.lost else None,
            ),
            lambda: fail_step(
                now,
                self._decision(),
                RecoveryStep.REPLAY,
                error_class="OSError",
                message='a "quote", a\nbreak,\ta \\ and a \0',
                policy=self.policy,
                now=NOW,
            ),
            self._lose,
            self._intervene,
        ]
        return chance.choice(wishes)

    def _lose(self) -> tuple[AnyEvent, ...]:
        now = self.recovery
        lease = replace(
            lease_view(progress=self.chance.choice(REPORTS)),
            attempt_id=self.attempt_id,
            run_id=now.run_id,
            kind=now.granted.kind,
            holder=now.holder,
            fence=now.fence,
        )
        is_fenced = self.chance.random() < 0.7
        return expire(
            now,
            self._decision(),
            lease=lease,
            loss=self.chance.choice([*LossReason]),
            fence=self._fence() if is_fenced else None,
            is_fleet_wide=self.chance.random() < 0.3,
        )

    def _replay(self) -> tuple[AnyEvent, ...]:
        now = self.recovery
        found = replay_chain(self.attempt_id, self.chance.choice(TIPS), now.reported)
        if self.chance.random() < 0.1:
            found = replace(found, result=ReplayResult.RAISED, error_class="E", message="m")
        return replay(now, self._decision(), found, policy=self.policy, now=NOW)

    def _dispatch(self) -> tuple[AnyEvent, ...]:
        self.worker = self.chance.choice(WORKERS)
        fence = self._fence()
        return dispatch(
            self.recovery,
            self._decision(is_worker=True),
            holder=holder(self.worker),
            fence=fence,
            ttl_s=30.0,
            dispatch_id=f"claim-{fence.epoch}",
        )

    def _write(self) -> tuple[AnyEvent, ...]:
        return confirm(self.recovery, self._decision(is_worker=True), WriteKind.RUN_STEP, 3)

    def _intervene(self) -> tuple[AnyEvent, ...]:
        if self.recovery.stage is Stage.WAITING:
            return resume(self.recovery, self._decision(), self._fence())
        option = self.chance.choice([*LiftOption])
        return lift(self.recovery, self._decision(), option, self._fence())

    def _fence(self) -> Fence:
        self.epoch += 1
        return Fence(epoch=self.epoch, lease_id=f"lease-{self.epoch}")

    def _decision(self, *, is_worker: bool = False) -> Decision:
        by = Actor(role="worker", host="h-1", pid=7, program="p", name=self.worker)
        return Decision(event_id=f"decision-{self.epoch}", by=by if is_worker else SWEEPER)


def random_log(
    chance: Random, *, prefix: str = "a-", attempt_count: int = 4, act_count: int = 60
) -> list[Record]:
    """The interleaved streams of some attempts, as records; positions have gaps."""
    lives: dict[str, Life] = {}
    records: list[Record] = []
    position = 1
    for _ in range(act_count):
        attempt_id = f"{prefix}{chance.randrange(attempt_count)}"
        life = lives.get(attempt_id)
        before = len(life.events) if life else 0
        if life is None:
            life = lives[attempt_id] = Life(attempt_id, chance)
        else:
            life.act()
        for event in life.events[before:]:
            at = BEGINNING + timedelta(milliseconds=position * 17, microseconds=position)
            records.append(Record(event, position, at))
            position += chance.choice([1, 1, 1, 2, 7])
    return records


logs: Any = st.builds(random_log, st.randoms(use_true_random=False))
"""Any well-formed log of a few attempts."""


def rows_of(projection: Projection[RowT], records: Iterable[Record]) -> list[RowT]:
    """The rows that a fold from scratch makes, one record after the other and nothing kept by
    the fold but rows: the plainest reading of the contract."""
    newest: dict[str, RowT] = {}
    rows: dict[tuple[Any, ...], RowT] = {}
    for record in records:
        if projection.events is not None and type(record.event) not in projection.events:
            continue
        key = projection.key(record.event)
        if key is None:
            continue
        before = newest.get(key)
        after = projection.fold(before, record)
        if after is not None and after is not before:
            newest[key] = after
            rows[projection.primary_key(after)] = after
    return [rows[key] for key in sorted(rows)]
