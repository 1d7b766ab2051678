"""Drives recoveries through the pipeline: each step for a whole batch of attempts at once.

Each step of every attempt is durable before the next begins, and each attempt gets its own answer.
A step that fails for the batch is retried for half as many at a time, down to one attempt alone, so
that one bad attempt never blocks the others.

Every step begins by locking the lease rows that still have this sweeper's fence.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem
from recovery_journal.domain.commands.pipeline import lose_tip, make_ready, reload, replay
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.errors import RecoveryJournalError, Stop, StoreBusy
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import Decision, Recovery, Stage
from recovery_journal.domain.replay import ReplayOutcome
from recovery_journal.domain.wording import message_of
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor
from recovery_journal.recovery.replayer import TailReplayer
from recovery_journal.recovery.sweep_result import StepObserver, StepTaken, SweepResult
from recovery_journal.store.keeping import Keeping
from recovery_journal.store.ledger import Answer, Events, Ledger, Owned
from recovery_journal.store.ready_notice import notify_ready
from recovery_journal.store.runs import RunStore
from recovery_journal.store.set_aside import BE_BRIEF
from recovery_journal.store.tips import RunSnapshot

STEP_AT_STAGE = {
    Stage.EXPIRED: RecoveryStep.CHECKPOINT_RELOAD,
    Stage.RELOADED: RecoveryStep.REPLAY,
    Stage.REPLAYED: RecoveryStep.READY_FOR_DISPATCH,
}

AtHand = dict[str, RunSnapshot]
"""By run: what a reload has read and the replay needs again."""

TakeStep = Callable[[Sequence[Recovery], AtHand, Keeping], dict[str, Answer]]
"""Takes one step of a group; an attempt without an answer belongs to another sweeper now."""


class Cohorts:
    """Takes batches of attempts, whose leases this process owns, to the end of the pipeline."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        runs: RunStore,
        replayer: TailReplayer,
        limits: Limits,
        observer: StepObserver,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._replayer = replayer
        self._limits = limits
        self._observer = observer

    def drive(self, recoveries: Iterable[Recovery]) -> list[SweepResult]:
        """Drive every attempt, taken just now, through the steps that remain, and notify waiting
        workers of those that have become ready. Attempts whose payloads together exceed
        `claim_bytes` are driven in parts, one after another, and are all renewed meanwhile."""
        group = list(recoveries)
        renew = Keeping(
            self._database,
            [(recovery.attempt_id, recovery.fence) for recovery in group],
            status=LeaseStatus.RECOVERING,
            ttl_s=self._limits.sweeper_ttl_s,
        )
        swept: list[SweepResult] = []
        for part in self._parts(group):
            swept += self._drive(part, renew)
        return swept

    def _parts(self, group: Sequence[Recovery]) -> Iterator[list[Recovery]]:
        if len(group) < 2:
            yield from [[one] for one in group]
            return
        sizes = self._runs.sizes([recovery.run_id for recovery in group])
        part: list[Recovery] = []
        left = self._limits.claim_bytes
        for recovery in group:
            size = sizes.get(recovery.run_id, 0)
            if part and size > left:
                yield part
                part, left = [], self._limits.claim_bytes
            part.append(recovery)
            left -= size
        yield part

    def _drive(self, part: Sequence[Recovery], renew: Keeping) -> list[SweepResult]:
        at_hand: AtHand = {}
        driven: dict[str, Recovery] = {recovery.attempt_id: recovery for recovery in part}
        errors: dict[str, str] = {}
        for stage, step in STEP_AT_STAGE.items():
            groups = [[it for id_, it in driven.items() if it.stage is stage and id_ not in errors]]
            while groups:
                group = groups.pop()
                if not group:
                    continue
                try:
                    renew()
                    answers = self._steps[step](group, at_hand, renew)
                except (StoreBusy, Stop) as error:
                    if len(group) > 1:
                        middle = len(group) // 2
                        groups += [group[middle:], group[:middle]]
                        continue
                    answers = self._fail(step, group[0], error)
                else:
                    taken = tuple(id_ for id_, it in answers.items() if isinstance(it, Recovery))
                    self._observer(StepTaken(step=step, attempt_ids=taken))
                for attempt_id in (recovery.attempt_id for recovery in group):
                    answer = answers.get(attempt_id, "another sweeper has taken it over")
                    if isinstance(answer, Recovery):
                        driven[attempt_id] = answer
                    else:
                        errors[attempt_id] = str(answer)
        swept = [SweepResult.of(it, errors.get(id_, "")) for id_, it in driven.items()]
        if ready_count := sum(one.is_ready for one in swept):
            notify_ready(self._database, ready_count)
        return swept

    @property
    def _steps(self) -> dict[RecoveryStep, TakeStep]:
        return {
            RecoveryStep.CHECKPOINT_RELOAD: self._reload,
            RecoveryStep.REPLAY: self._replay,
            RecoveryStep.READY_FOR_DISPATCH: self._make_ready,
        }

    def _reload(
        self, group: Sequence[Recovery], at_hand: AtHand, renew: Keeping
    ) -> dict[str, Answer]:
        decision, policy = self._decision(), self._limits.policy
        # Their old workers are fenced, so these tips no longer move. Damage that happens before the
        # replay is found by the claimer, which recomputes the chain before any user code runs.
        at_hand |= self._read(group, renew)

        def command(recovery: Recovery, owned: Owned) -> Events:
            tip = at_hand[recovery.run_id].tip
            return reload(recovery, decision, tip, policy=policy, now=owned.seen_at)

        with self._brief_transaction() as cursor:
            answers = self._ledger.advance(cursor, group, command)
            for answer in answers.values():
                if isinstance(answer, Recovery) and answer.lifted is LiftOption.ACCEPT_TIP:
                    tip = at_hand[answer.run_id].tip
                    if isinstance(tip, Checkpoint):
                        self._runs.realign(cursor, answer.attempt_id, tip)
        return answers

    def _replay(
        self, group: Sequence[Recovery], at_hand: AtHand, renew: Keeping
    ) -> dict[str, Answer]:
        # Attempts that are not at hand were reloaded by another sweeper, which is gone.
        at_hand |= self._read([one for one in group if one.run_id not in at_hand], renew)
        snapshots = {recovery.run_id: at_hand.pop(recovery.run_id) for recovery in group}
        work = {
            recovery.attempt_id: (recovery.context(), tip)
            for recovery in group
            if isinstance(tip := snapshots[recovery.run_id].tip, Checkpoint)
        }
        replayed = self._replayer.replay(list(work.values()), renew, snapshots)
        outcomes: dict[str, ReplayOutcome] = dict(zip(work, replayed, strict=True))
        decision, policy = self._decision(), self._limits.policy

        def command(recovery: Recovery, owned: Owned) -> Events:
            now = owned.seen_at
            outcome = outcomes.get(recovery.attempt_id)
            if outcome is not None:
                return replay(recovery, decision, outcome, policy=policy, now=now)
            # The tip was there at the reload and is damaged now.
            problem = snapshots[recovery.run_id].tip
            assert isinstance(problem, CheckpointProblem)
            return lose_tip(recovery, decision, problem, policy=policy, now=now)

        with self._brief_transaction() as cursor:
            return self._ledger.advance(cursor, group, command)

    def _make_ready(
        self, group: Sequence[Recovery], _at_hand: AtHand, _renew: Keeping
    ) -> dict[str, Answer]:
        decision = self._decision()

        def command(recovery: Recovery, owned: Owned) -> Events:
            return make_ready(recovery, decision, now=owned.seen_at)

        with self._brief_transaction() as cursor:
            return self._ledger.advance(cursor, group, command)

    @contextmanager
    def _brief_transaction(self) -> Iterator[Cursor[DictRow]]:
        """One step is one transaction, which waits only briefly for the lock of one attempt."""
        with self._database.transaction() as cursor:
            cursor.execute(BE_BRIEF)
            yield cursor

    def _read(self, group: Sequence[Recovery], renew: Keeping) -> AtHand:
        """Read the snapshots of these runs, to be at hand until their replay."""
        runs = [recovery.run_id for recovery in group]
        if not runs:
            return {}
        with renew.beside():
            return dict(zip(runs, self._runs.kept(runs), strict=True))

    def _fail(
        self, step: RecoveryStep, recovery: Recovery, error: RecoveryJournalError
    ) -> dict[str, Answer]:
        """Record that a step failed; it is due again after its wait. Where the stream cannot be
        written, set the attempt aside."""

        def command(fresh: Recovery, owned: Owned) -> Events:
            return fail_step(
                fresh,
                self._decision(),
                step,
                error_class=type(error).__name__,
                message=message_of(error),
                policy=self._limits.policy,
                now=owned.seen_at,
            )

        try:
            with self._brief_transaction() as cursor:
                return self._ledger.advance(cursor, [recovery], command)
        except (StoreBusy, Stop) as second:
            with self._database.transaction() as cursor:
                if self._ledger.lock_owned(cursor, [recovery]):
                    self._ledger.set_aside(cursor, {recovery.attempt_id: second})
            return {recovery.attempt_id: second}

    def _decision(self) -> Decision:
        """One decision for a step of the whole batch, as one claim is of many attempts."""
        return Decision(event_id=uuid4().hex, by=actor("sweeper"))
