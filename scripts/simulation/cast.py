"""The actors of a run: workers, sweepers, followers, an operator and a rebuilder.

Each runs the product's own code with a journal of its own, as a process would; only the loops
around it are ours, for those of the product wait for signals and threads.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

import recovery_journal as rj
from recovery_journal.domain.errors import LeaseLost, PayloadCorrupt, Refused, Retry
from recovery_journal.domain.lease import Incarnation, LeaseStatus
from recovery_journal.values.payload import encode
from recovery_journal.worker.session_lock import SessionLock
from scripts.simulation.connection import SimulatedDatabase
from scripts.simulation.network import Network
from scripts.simulation.promises import Promises
from scripts.simulation.world import Actor, Violation

LIMITS: Final = rj.Limits(
    ttl_s=5.0,
    grace_s=1.0,
    session_grace_s=0.75,
    session_poll_s=0.4,
    sweeper_ttl_s=5.0,
    cohort_size=3,
)
RETRY_S: Final = 0.2
SLOWEST_S: Final = 9.0

Answer = TypeVar("Answer")


class Run:
    """One run's work: items one after the other, a checkpoint after every few."""

    def __init__(self, run_id: str, item_count: int, items_per_checkpoint: int) -> None:
        self.run_id = run_id
        self.attempt_id = f"attempt of {run_id}"
        self.item_count = item_count
        self.items_per_checkpoint = items_per_checkpoint
        self.is_acquired = False

    @property
    def result(self) -> dict[str, Any]:
        """Its result, however often its worker dies."""
        return {"run": self.run_id, "items": self.item_count}


class Cast:
    """Everybody, and what they share: the server, the runs, and what was promised to them."""

    def __init__(self, network: Network, dsn: str, promises: Promises, runs: list[Run]) -> None:
        self.world = network.world
        self.runs = {run.run_id: run for run in runs}
        self.is_calm = False
        self._network = network
        self._dsn = dsn
        self._promises = promises
        self._lives = count(1)
        self._dead: list[tuple[str, Incarnation]] = []

    def enter(self, *, workers: int, sweepers: int, followers: int) -> None:
        """Bring them on."""
        for no in range(workers):
            self.world.add(f"worker-{no}", self._work)
        for no in range(sweepers):
            self.world.add(f"sweeper-{no}", self._sweep)
        for no in range(followers):
            self.world.add(f"follower-{no}", self._follow)
        self.world.add("operator", self._operate)
        self.world.add("rebuilder", self._rebuild)

    def journal(self) -> rj.Journal:
        """A journal of one's own, as a process has it."""
        return rj.Journal(SimulatedDatabase(self._dsn, self._network), limits=LIMITS)

    def incarnation(self) -> Incarnation:
        """Stands for the product's function of that name: a life of the current actor."""
        actor = self.world.current
        name, life_no = (actor.name, actor.life_no) if actor else ("no actor", 1)
        return Incarnation(host="simulated", boot_id=name, pid=life_no, started=str(life_no))

    # Workers ---------------------------------------------------------------------------------

    def _work(self, actor: Actor) -> None:
        journal = self.journal()
        life = self.incarnation()
        actor.on_death.append(lambda: self._dead.append((actor.name, life)))
        lock = SessionLock(journal.database)
        while True:
            lock.is_lost()
            lock.take()
            try:
                claims = self._claim(journal, actor, lock)
                if not claims and (lease := self._acquire(journal, actor)) is not None:
                    claims = self._load(journal, lease)
                for claim in claims:
                    self._work_on(claim, lock)
            except (Retry, LeaseLost):
                pass
            self._rest(0.5)

    def _claim(self, journal: rj.Journal, actor: Actor, lock: SessionLock) -> list[rj.Claim]:
        """Claim, and after a lost reply the very same claim again."""
        event_id = f"claim {next(self._lives)}" if self._chance(0.7) else None
        limit = self.world.random.randint(1, 3)
        claims = self._retry(
            lambda: journal.claim(
                worker_id=actor.name, limit=limit, event_id=event_id, session_lock=lock.number
            ),
            is_over=lambda: event_id is None or self._chance(0.2),
        )
        for claim in claims:
            self._promises.receive(claim)
        return claims

    def _acquire(self, journal: rj.Journal, actor: Actor) -> rj.Lease | None:
        waiting = [run for run in self.runs.values() if not run.is_acquired]
        if not waiting:
            return None
        run = self.world.random.choice(waiting)
        event_id = f"acquire {next(self._lives)}"
        ids: Any = {"attempt_id": run.attempt_id, "run_id": run.run_id, "event_id": event_id}
        lease = None
        with suppress(Refused, LeaseLost):  # by another, or by this one before it lost it
            lease = self._retry(lambda: journal.acquire(worker_id=actor.name, **ids))
        run.is_acquired = True
        return lease

    def _load(self, journal: rj.Journal, lease: rj.Lease) -> list[rj.Claim]:
        """The claim of a lease that was just acquired. If its worker hears of it so late that
        others had the attempt meanwhile, their checkpoint may have been damaged."""
        try:
            return [journal.load(lease)]
        except PayloadCorrupt as problem:
            self._promises.require_doubted(lease.run_id, problem)
            return []

    def _work_on(self, claim: rj.Claim, lock: SessionLock) -> None:
        lease, run = claim.lease, self.runs[claim.lease.run_id]
        done = _items_done(claim)
        while done < run.item_count:
            self._linger(lease, lock)
            done += 1
            name, item = f"item {done}", {"item": done}
            if self._chance(0.3):
                self._insist(lease, partial(lease.begin_step, name))
            self._insist(lease, partial(lease.record_step, name, item))
            self._promises.acknowledge_step(lease, encode(item, name="output").encoded)
            if done % run.items_per_checkpoint == 0:
                self._insist(lease, partial(lease.checkpoint, {"done": done}))
            if not self.is_calm and self._chance(0.02):
                self._leave(lease)
                return
        self._insist(lease, lambda: lease.complete(run.result))
        self._promises.acknowledge_completion(lease)

    def _leave(self, lease: rj.Lease) -> None:
        if self._chance(0.5):
            lease.hand_back("drained")
        else:
            lease.wait("for a person")

    def _linger(self, lease: rj.Lease, lock: SessionLock) -> None:
        """Take a while over an item, mostly with heartbeats."""
        is_slow = not self.is_calm and self._chance(0.05)
        self._rest(SLOWEST_S if is_slow else 0.5)
        lock.is_lost()
        if lock.take() or self._chance(0.4):
            for _ in range(self.world.random.choice([1, 1, 2])):
                self._insist(lease, lambda: lease.heartbeat(session_lock=lock.number))

    def _insist(self, lease: rj.Lease, call: Callable[[], Answer]) -> Answer:
        """Retry while the lease can still hold, as a worker's child does."""
        give_up_at = self.world.now_s + lease.ttl_s
        return self._retry(call, is_over=lambda: self.world.now_s > give_up_at)

    def _retry(
        self, call: Callable[[], Answer], is_over: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Retry the very same call while there is no reply, until it is over."""
        while True:
            try:
                return call()
            except Retry:
                if is_over():
                    raise
            self._rest(RETRY_S)

    # The others ------------------------------------------------------------------------------

    def _sweep(self, _actor: Actor) -> None:
        journal = self.journal()
        while True:
            try:
                pause_s = 0.0 if journal.sweep() else 0.5
                while pause_s > 0 and (wait_s := journal.watch_sessions()) > 0:
                    self.world.sleep(wait_s)
                    pause_s -= wait_s
            except Retry:
                self._rest(1.0)

    def _follow(self, _actor: Actor) -> None:
        journal = self.journal()
        follower = rj.Follower(journal, batch_events=self.world.random.choice([1, 7, 1000]))
        while True:
            with suppress(Retry):  # the next round is the second try
                follower.step()
            self._rest(2.0)

    def _rebuild(self, _actor: Actor) -> None:
        journal = self.journal()
        while True:
            self._rest(25.0)
            with suppress(Retry):
                journal.rebuild(process_count=1)

    def _operate(self, _actor: Actor) -> None:
        journal = self.journal()
        while True:
            self._rest(1.0 if self.is_calm else 4.0)
            with suppress(Retry, Refused):  # it may have moved on by itself
                self._look_after(journal)

    def _look_after(self, journal: rj.Journal) -> None:
        person = {"by": "operator", "reason": "simulated"}
        for one in journal.quarantined(limit=10):
            options = one.options or (rj.LiftOption.RETRY,)
            journal.lift_quarantine(one.attempt_id, self.world.random.choice(options), **person)
        waiting = [
            attempt_id
            for attempt_id, status in self._promises.statuses.items()
            if status == LeaseStatus.WAITING
        ]
        for attempt_id in waiting:
            if self.is_calm or self._chance(0.5):
                journal.resume(attempt_id, **person)
        if self._dead and self._chance(0.3):
            worker_id, life = self._dead.pop()
            journal.report_lost(worker_id=worker_id, incarnation=life, reason="simulated")
        if not self.is_calm and self._promises.statuses and self._chance(0.05):
            attempt_id = self.world.random.choice(sorted(self._promises.statuses))
            journal.cancel(attempt_id, **person)

    def _rest(self, longest_s: float) -> None:
        self.world.sleep(self.world.random.random() * longest_s)

    def _chance(self, share: float) -> bool:
        return self.world.random.random() < share


def _items_done(claim: rj.Claim) -> int:
    """How far the run has come, from what the worker was handed: the state, then the tail."""
    done: int = claim.state["done"] if claim.state else 0
    for step in claim.tail:
        if step.output != {"item": done + 1}:
            raise Violation(f"{claim.lease!r} was handed {step} after item {done}")
        done += 1
    return done
