"""One attempt of a fleet. Its story is made up; every event is decided by the domain's own
commands."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final, TypeAlias

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointRef, RunStep
from recovery_journal.domain.commands.lease import confirm, dispatch, end, grant
from recovery_journal.domain.commands.pipeline import abandon, expire, make_ready, reload, replay
from recovery_journal.domain.digest import chain_next, chain_origin, payload_digest
from recovery_journal.domain.events import AbandonReason, AnyEvent, Ending, LeaseGranted, WriteKind
from recovery_journal.domain.lease import Actor, LeaseView, LossReason
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Decision, evolve
from recovery_journal.domain.replay import replay_chain
from scripts.histories.fleet import Fleet, actor

TTL_S: Final = 30.0
GRACE_S: Final = 5.0
KINDS: Final = ("import", "training", "report")
CODE_VERSION: Final = "2026.1"
TENANT_COUNT: Final = 40
PRIORITY_COUNT: Final = 3
SAVED_STEPS: Final = 2
TAIL_STEPS: Final = 3
POLICY: Final = Policy()

Story: TypeAlias = Iterator[AnyEvent]
Command: TypeAlias = Callable[..., tuple[AnyEvent, ...]]


class Attempt:
    """Yields the events of one of its stories, once."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._name = fleet.name()
        run_id = f"run-{self._name[:24]}"
        input_digest = payload_digest(run_id.encode())
        self._tip = Checkpoint(
            run_id=run_id,
            ref=None,
            ordinal=0,
            chain=chain_origin(run_id, input_digest),
            input_digest=input_digest,
        )
        self._first = granted(
            fleet,
            attempt_id=f"attempt-{self._name}",
            run_id=run_id,
            input_digest=input_digest,
            kind=KINDS[fleet.below(len(KINDS))],
            tenant=f"tenant-{fleet.below(TENANT_COUNT)}",
            priority=fleet.below(PRIORITY_COUNT),
            code_version=CODE_VERSION,
        )
        self._attempt = evolve(None, self._first)

    # -- stories ---------------------------------------------------------------------------

    def false_alarms(self, count: int) -> Story:
        """A foreign lease that was renewed late, repeatedly."""
        yield self._first
        for _ in range(count):
            self._work()
            yield self._lost(is_foreign=True)
            yield self._renewed()

    def crash_loop(self) -> Story:
        """A run that reaches a certain step, and then crashes every worker that claims it."""
        yield self._first
        yield self._confirmed()
        self._work()
        # The first loss still shows progress, so it does not count.
        for _ in range(POLICY.crash_loop_count):
            yield from self._recovered()
        yield self._lost()
        yield self._reloaded()  # which quarantines it

    def lost_once(self) -> Story:
        """Lost, recovered, confirmed, completed."""
        yield self._first
        yield self._confirmed()
        self._work()
        yield from self._recovered()
        yield self._confirmed()
        self._work()
        yield self._completed()

    def lost_for_ever(self) -> Story:
        """Lost, recovered and confirmed repeatedly: a stream without end."""
        yield self._first
        yield self._confirmed()
        while True:
            self._work()
            yield from self._recovered()
            yield self._confirmed()

    def _recovered(self) -> Story:
        yield self._lost()
        yield self._reloaded()
        yield self._replayed()
        yield self._ready()
        yield self._dispatched()

    # -- what happens ----------------------------------------------------------------------

    def _work(self) -> None:
        """Record some run steps, save the state, and record more; all outputs are the input."""
        tip, epoch = self._tip, self._attempt.fence.epoch
        outputs = [tip.input_digest] * (SAVED_STEPS + TAIL_STEPS)
        recorded = list(run_steps(tip.tip_ordinal, tip.progress.digest, outputs, epoch))
        saved = recorded[SAVED_STEPS - 1]
        number = tip.newest_no + 1
        self._tip = Checkpoint(
            run_id=tip.run_id,
            ref=CheckpointRef(run_id=tip.run_id, checkpoint_no=number),
            ordinal=saved.ordinal,
            chain=saved.chain,
            newest_no=number,
            state_digest=payload_digest(saved.chain.encode()),
            written_by_epoch=epoch,
            code_version=CODE_VERSION,
            input_digest=tip.input_digest,
            tail=tuple(recorded[SAVED_STEPS:]),
        )

    def _confirmed(self) -> AnyEvent:
        return self._now(self._holder, confirm, WriteKind.RUN_STEP, self._tip.tip_ordinal + 1)

    def _lost(self, *, is_foreign: bool = False) -> AnyEvent:
        fence = None if is_foreign else self._fleet.fence()
        found: dict[str, Any] = {"lease": self._seen(), "loss": LossReason.TTL, "fence": fence}
        why = "its lease was not renewed in time"
        return self._now(self._fleet.sweeper, expire, reason=why, **found)

    def _renewed(self) -> AnyEvent:
        assert self._attempt.lost is not None
        lease, why = self._attempt.lost.lease, AbandonReason.RENEWED_LATE
        return self._now(self._fleet.sweeper, abandon, why, lease=lease, reason="renewed after all")

    def _reloaded(self) -> AnyEvent:
        now = self._fleet.tick()
        return self._now(self._fleet.sweeper, reload, self._tip, policy=POLICY, now=now)

    def _replayed(self) -> AnyEvent:
        now = self._fleet.tick()
        outcome = replay_chain(self._attempt.attempt_id, self._tip, self._attempt.reported)
        return self._now(self._fleet.sweeper, replay, outcome, policy=POLICY, now=now)

    def _ready(self) -> AnyEvent:
        return self._now(self._fleet.sweeper, make_ready, now=self._fleet.tick())

    def _dispatched(self) -> AnyEvent:
        holder, fence = self._fleet.worker(), self._fleet.fence()
        new: dict[str, Any] = {"holder": holder, "fence": fence, "dispatch_id": self._fleet.name()}
        return self._now(actor(holder), dispatch, ttl_s=TTL_S, **new)

    def _completed(self) -> AnyEvent:
        digest = payload_digest(self._name.encode())
        return self._now(self._holder, end, Ending.COMPLETED, result_digest=digest)

    # -- details ---------------------------------------------------------------------------

    def _now(
        self, by: Actor, command: Command, *given: object, reason: str = "", **details: Any
    ) -> AnyEvent:
        """The one event that a command decides now."""
        decision = Decision(event_id=self._fleet.name(), by=by, reason=reason)
        (event,) = command(self._attempt, decision, *given, **details)
        self._attempt = evolve(self._attempt, event)
        return event

    @property
    def _holder(self) -> Actor:
        return actor(self._attempt.holder)

    def _seen(self) -> LeaseView:
        """The lease as the sweeper that finds it lost sees it."""
        attempt, now = self._attempt, self._fleet.tick()
        return LeaseView(
            attempt_id=attempt.attempt_id,
            run_id=attempt.run_id,
            kind=attempt.granted.kind,
            holder=attempt.holder,
            fence=attempt.fence,
            granted_at=now - timedelta(minutes=7),
            renewed_at=now - timedelta(seconds=TTL_S + GRACE_S),
            expires_at=now - timedelta(seconds=GRACE_S),
            seen_at=now,
            ttl_s=TTL_S,
            grace_s=GRACE_S,
            progress=self._tip.progress,
            is_confirmed=attempt.is_confirmed,
            code_version=CODE_VERSION,
            dispatch_id=attempt.dispatch_id,
        )


def granted(fleet: Fleet, *, ttl_s: float = TTL_S, **details: Any) -> LeaseGranted:
    """The first event of an attempt, which any worker of the fleet acquires."""
    holder = fleet.worker()
    given: dict[str, Any] = {"code_version": "", "tenant": "", "priority": 0} | details
    return grant(
        Decision(event_id=fleet.name(), by=actor(holder)),
        holder=holder,
        fence=fleet.fence(),
        ttl_s=ttl_s,
        attempt_no=1,
        timeout_s=None,
        **given,
    )


def run_steps(ordinal: int, chain: str, digests: Iterable[str], epoch: int) -> Iterator[RunStep]:
    """Run steps after an ordinal with outputs of these digests."""
    for at, digest in enumerate(digests, ordinal + 1):
        chain = chain_next(chain, ordinal=at, name="step", output_digest=digest)
        yield RunStep(ordinal=at, name="step", output_digest=digest, chain=chain, epoch=epoch)
