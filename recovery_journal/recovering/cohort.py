"""Driving recoveries through the pipeline: every step for a whole batch of attempts at once.

Each step of every attempt is durable before the next begins, each element answers for itself, and
a step that fails for the batch is taken again for each alone, so that one bad attempt never holds
up the others. A step is taken only where the lease row still has this sweeper's fence.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from domain import detours, reloading, steps
from domain.checkpoint import Checkpoint, CheckpointProblem
from domain.errors import RecoveryJournalError, Stop, StoreBusy
from domain.events import AnyEvent, LiftOption
from domain.lease import LeaseStatus
from domain.pipeline import RecoveryStep
from domain.recovery import Decision, Recovery, Stage
from domain.replay import ReplayOutcome
from recovery_journal import inputs
from recovery_journal.identity import actor, sweeper_holder
from recovery_journal.leases.ledger import Ledger
from recovery_journal.leases.move import Move
from recovery_journal.leases.ready_call import call
from recovery_journal.leases.runs import RunStore
from recovery_journal.leases.tips import Kept
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.recovering.replayer import TailReplayer

STEP_AT_STAGE = {
    Stage.EXPIRED: RecoveryStep.CHECKPOINT_RELOAD,
    Stage.RELOADED: RecoveryStep.REPLAY,
    Stage.REPLAYED: RecoveryStep.READY_FOR_DISPATCH,
}

RENEW = """
UPDATE leases
SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(sweeper_ttl_s)s)
FROM unnest(%(attempt_ids)s::text[], %(epochs)s::bigint[]) AS mine(attempt_id, epoch)
WHERE leases.attempt_id = mine.attempt_id
    AND leases.epoch = mine.epoch
    AND status = 'recovering'
    AND retry_at IS NULL
"""


class Swept(Struct, frozen=True, kw_only=True):
    """What a sweep did for one attempt: where it stands now, or why it could not go on."""

    attempt_id: str
    run_id: str = ""
    recovery_no: int = 0
    stage: Stage | None = None
    error: str = ""

    @classmethod
    def of(cls, recovery: Recovery, error: str = "") -> "Swept":
        """How an attempt stands after its sweep."""
        return cls(
            attempt_id=recovery.attempt_id,
            run_id=recovery.run_id,
            recovery_no=recovery.recovery_no,
            stage=recovery.stage,
            error=error,
        )

    @property
    def is_ready(self) -> bool:
        """Whether the attempt may now be claimed."""
        return self.stage is Stage.READY


class StepTaken(Struct, frozen=True, kw_only=True):
    """Said to an observer each time a step of a batch is durable."""

    step: RecoveryStep
    attempt_ids: tuple[str, ...]


Observer = Callable[[StepTaken], object]
Answer = Recovery | RecoveryJournalError | None
"""After a step: the attempt, its error, or None where another sweeper has taken it over."""


AtHand = dict[str, Kept]
"""By run, what a reload has read and the replay needs again."""
TakeStep = Callable[[Sequence[Recovery], AtHand], dict[str, Answer]]


class Cohorts:
    """Takes batches of attempts, whose leases this process owns, to the end of the pipeline."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        runs: RunStore,
        replayer: TailReplayer,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._replayer = replayer
        self._limits = limits
        self._observer = observer

    def drive(self, recoveries: Iterable[Recovery]) -> list[Swept]:
        """Take every attempt through the steps that are left to it, and call the workers that wait
        for those that have become ready."""
        at_hand: AtHand = {}
        done: dict[str, Recovery] = {recovery.attempt_id: recovery for recovery in recoveries}
        errors: dict[str, str] = {}
        for stage, step in STEP_AT_STAGE.items():
            group = [
                recovery
                for recovery in done.values()
                if recovery.stage is stage and recovery.attempt_id not in errors
            ]
            for attempt_id, answer in self._take(step, group, at_hand).items():
                if isinstance(answer, Recovery):
                    done[attempt_id] = answer
                else:
                    errors[attempt_id] = str(answer or "another sweeper has taken it over")
        swept = [Swept.of(one, errors.get(attempt_id, "")) for attempt_id, one in done.items()]
        if ready_count := sum(one.is_ready for one in swept):
            call(self._database, ready_count)
        return swept

    def _take(
        self, step: RecoveryStep, group: Sequence[Recovery], at_hand: AtHand
    ) -> dict[str, Answer]:
        """One step of a batch; where the batch as a whole fails, of each alone."""
        if not group:
            return {}
        try:
            answers = self._steps[step](group, at_hand)
        except (StoreBusy, Stop) as error:
            if len(group) == 1:
                return {group[0].attempt_id: self._try_to_fail(step, group[0], error)}
            answers = {}
            for recovery in group:
                answers |= self._take(step, [recovery], at_hand)
            return answers
        moved = tuple(id_ for id_, answer in answers.items() if isinstance(answer, Recovery))
        self._observer(StepTaken(step=step, attempt_ids=moved))
        return answers

    @property
    def _steps(self) -> dict[RecoveryStep, TakeStep]:
        return {
            RecoveryStep.CHECKPOINT_RELOAD: self._reload,
            RecoveryStep.REPLAY: self._replay,
            RecoveryStep.READY_FOR_DISPATCH: self._make_ready,
        }

    def _reload(self, group: Sequence[Recovery], at_hand: AtHand) -> dict[str, Answer]:
        with self._database.transaction() as cursor:
            mine = self._lock(cursor, group)
            kept = self._keep(cursor, group)
            at_hand |= kept
            now = self._ledger.now(cursor)

            decision = self._decision()

            def decide(recovery: Recovery) -> tuple[AnyEvent, ...]:
                tip = kept[recovery.run_id].tip
                policy = self._limits.policy
                events = reloading.reload(recovery, decision, tip, policy=policy, now=now)
                if recovery.lifted is LiftOption.ACCEPT_TIP and isinstance(tip, Checkpoint):
                    self._runs.realign(cursor, recovery.attempt_id, tip)
                return events

            return self._record(cursor, group, mine, decide)

    def _replay(self, group: Sequence[Recovery], at_hand: AtHand) -> dict[str, Answer]:
        kept = self._kept_for_replay(group, at_hand)
        work = {
            recovery.attempt_id: (recovery.context(), tip)
            for recovery in group
            if isinstance(tip := kept[recovery.run_id].tip, Checkpoint)
        }
        answers = self._replayer.replay(list(work.values()), self._renewing(group), kept)
        outcomes: dict[str, ReplayOutcome] = dict(zip(work, answers, strict=True))
        with self._database.transaction() as cursor:
            mine = self._lock(cursor, group)
            now = self._ledger.now(cursor)
            decision = self._decision()

            def decide(recovery: Recovery) -> tuple[AnyEvent, ...]:
                policy = self._limits.policy
                outcome = outcomes.get(recovery.attempt_id)
                if outcome is not None:
                    return steps.replay(recovery, decision, outcome, policy=policy, now=now)
                # The tip was there at the reload and is damaged now.
                problem = kept[recovery.run_id].tip
                assert isinstance(problem, CheckpointProblem)
                return reloading.lose_tip(recovery, decision, problem, policy=policy, now=now)

            return self._record(cursor, group, mine, decide)

    def _make_ready(self, group: Sequence[Recovery], _at_hand: AtHand) -> dict[str, Answer]:
        with self._database.transaction() as cursor:
            mine = self._lock(cursor, group)
            now = self._ledger.now(cursor)
            decision = self._decision()

            def decide(recovery: Recovery) -> tuple[AnyEvent, ...]:
                return steps.make_ready(recovery, decision, now=now)

            return self._record(cursor, group, mine, decide)

    def _record(
        self,
        cursor: Cursor[DictRow],
        group: Sequence[Recovery],
        mine: dict[str, Recovery | RecoveryJournalError],
        decide: Callable[[Recovery], tuple[AnyEvent, ...]],
    ) -> dict[str, Answer]:
        answers: dict[str, Answer] = {recovery.attempt_id: None for recovery in group}
        moves, owner = [], sweeper_holder()
        for attempt_id, recovery in mine.items():
            try:
                if isinstance(recovery, RecoveryJournalError):
                    raise recovery
                events = decide(recovery)
            except RecoveryJournalError as error:
                answers[attempt_id] = error
                continue
            moves.append(Move(recovery, events, owner, self._limits.sweeper_ttl_s))
        for move, answer in zip(moves, self._ledger.record(cursor, moves), strict=True):
            answers[move.recovery.attempt_id] = answer
        return answers

    def _lock(
        self, cursor: Cursor[DictRow], group: Sequence[Recovery]
    ) -> dict[str, Recovery | RecoveryJournalError]:
        """The attempts that are still this sweeper's, their rows locked, as they are now.

        A refused stale write moves a stream without taking it over: such a one is read again.
        """
        by_id = {recovery.attempt_id: recovery for recovery in group}
        fences = [(recovery.attempt_id, recovery.fence) for recovery in group]
        versions = self._ledger.lock_fenced(cursor, fences, LeaseStatus.RECOVERING)
        mine: dict[str, Recovery | RecoveryJournalError] = {id_: by_id[id_] for id_ in versions}
        moved = [id_ for id_, version in versions.items() if by_id[id_].version != version]
        return mine | self._ledger.load(cursor, moved) if moved else mine

    def _keep(self, cursor: Cursor[DictRow], group: Sequence[Recovery]) -> dict[str, Kept]:
        """What the store keeps of these runs, by run, and at hand until their replay.

        Their old workers are fenced, so it does not move any more. What is damaged in between is
        found by the claimer, who recomputes the chain before any user code goes on.
        """
        runs = [recovery.run_id for recovery in group]
        return dict(zip(runs, self._runs.kept(runs, cursor), strict=True))

    def _kept_for_replay(self, group: Sequence[Recovery], at_hand: AtHand) -> dict[str, Kept]:
        missing = [recovery for recovery in group if recovery.run_id not in at_hand]
        if missing:  # another sweeper reloaded them, and is gone
            with self._database.transaction() as cursor:
                at_hand |= self._keep(cursor, missing)
        return {recovery.run_id: at_hand.pop(recovery.run_id) for recovery in group}

    def _renewing(self, group: Sequence[Recovery]) -> Callable[[], None]:
        """Renews this sweeper's leases while a replay takes long: three times in their TTL."""
        every_s = self._limits.sweeper_ttl_s / 3
        renewed_at = time.monotonic()
        mine: dict[str, Any] = {
            "attempt_ids": [recovery.attempt_id for recovery in group],
            "epochs": [recovery.fence.epoch for recovery in group],
            "sweeper_ttl_s": self._limits.sweeper_ttl_s,
        }

        def renew() -> None:
            nonlocal renewed_at
            if time.monotonic() - renewed_at >= every_s:
                with self._database.cursor() as cursor:
                    cursor.execute(RENEW, mine)
                renewed_at = time.monotonic()

        return renew

    def _try_to_fail(
        self, step: RecoveryStep, recovery: Recovery, error: RecoveryJournalError
    ) -> Answer:
        """Note a failure where the stream can be written; else its lease expires, and the next
        sweeper tries."""
        try:
            return self._fail(step, recovery, error)
        except (StoreBusy, Stop) as second:
            return second

    def _fail(self, step: RecoveryStep, recovery: Recovery, error: RecoveryJournalError) -> Answer:
        """Note that a step could not be taken now; it is free to be tried again later."""
        with self._database.transaction() as cursor:
            mine = self._lock(cursor, [recovery])
            now = self._ledger.now(cursor)

            def decide(fresh: Recovery) -> tuple[AnyEvent, ...]:
                return detours.fail_step(
                    fresh,
                    self._decision(),
                    step,
                    error_class=type(error).__name__,
                    message=inputs.message_of(error),
                    policy=self._limits.policy,
                    now=now,
                )

            return self._record(cursor, [recovery], mine, decide)[recovery.attempt_id]

    def _decision(self) -> Decision:
        """One decision for a step of the whole batch, as one claim is of many attempts."""
        return Decision(event_id=uuid4().hex, by=actor("sweeper"))
