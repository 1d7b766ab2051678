"""Drives recoveries through the pipeline: each step for a whole batch of attempts at once.

Each step of every attempt is durable before the next begins, and each attempt gets its own answer.
A step that fails for the batch is retried for half as many at a time, down to one attempt alone, so
that one bad attempt never blocks the others.

Every step begins by locking the lease rows that still have this sweeper's fence. A step that only
advances the stage leaves its row unchanged: what the row says of the attempt stays true. If the
attempt's stream has grown, as a refused stale write makes it grow, the stream is read again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from uuid import uuid4

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem
from recovery_journal.domain.commands.pipeline import lose_tip, make_ready, reload, replay
from recovery_journal.domain.commands.retry import fail_step
from recovery_journal.domain.errors import AppendConflict, RecoveryJournalError, Stop, StoreBusy
from recovery_journal.domain.events import AnyEvent, CheckpointReloaded, LiftOption, Replayed
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import Decision, Recovery, Stage
from recovery_journal.domain.replay import ReplayOutcome
from recovery_journal.domain.wording import message_of
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor, sweeper_holder
from recovery_journal.recovery.replayer import TailReplayer
from recovery_journal.recovery.sweep_result import StepObserver, StepTaken, SweepResult
from recovery_journal.store.keeping import Keeping
from recovery_journal.store.ledger import Known, Ledger
from recovery_journal.store.move import Move
from recovery_journal.store.ready_notice import notify_ready
from recovery_journal.store.runs import RunStore
from recovery_journal.store.set_aside import BE_BRIEF, set_aside
from recovery_journal.store.tips import RunSnapshot

STEP_AT_STAGE = {
    Stage.EXPIRED: RecoveryStep.CHECKPOINT_RELOAD,
    Stage.RELOADED: RecoveryStep.REPLAY,
    Stage.REPLAYED: RecoveryStep.READY_FOR_DISPATCH,
}

Answer = Recovery | RecoveryJournalError | None
"""After a step: the attempt, its error, or None where another sweeper has taken it over."""

AtHand = dict[str, RunSnapshot]
"""By run: what a reload has read and the replay needs again."""

Decide = Callable[[Recovery, Cursor[DictRow], datetime], tuple[AnyEvent, ...]]
TakeStep = Callable[[Sequence[Recovery], AtHand, Keeping], dict[str, Answer]]


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
        return [one for part in self._parts(group) for one in self._drive(part, renew)]

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
        done: dict[str, Recovery] = {recovery.attempt_id: recovery for recovery in part}
        errors: dict[str, str] = {}
        for stage, step in STEP_AT_STAGE.items():
            group = [
                recovery
                for recovery in done.values()
                if recovery.stage is stage and recovery.attempt_id not in errors
            ]
            for attempt_id, answer in self._take(step, group, at_hand, renew).items():
                if isinstance(answer, Recovery):
                    done[attempt_id] = answer
                else:
                    errors[attempt_id] = str(answer or "another sweeper has taken it over")
        swept = [
            SweepResult.of(one, errors.get(attempt_id, "")) for attempt_id, one in done.items()
        ]
        if ready_count := sum(one.is_ready for one in swept):
            notify_ready(self._database, ready_count)
        return swept

    def _take(
        self, step: RecoveryStep, group: Sequence[Recovery], at_hand: AtHand, renew: Keeping
    ) -> dict[str, Answer]:
        """Take one step of a batch; where the batch as a whole fails, of half as many at a time."""
        if not group:
            return {}
        try:
            renew()
            answers = self._steps[step](group, at_hand, renew)
        except (StoreBusy, Stop) as error:
            if len(group) == 1:
                return {group[0].attempt_id: self._try_to_fail(step, group[0], error)}
            middle = len(group) // 2
            return self._take(step, group[:middle], at_hand, renew) | self._take(
                step, group[middle:], at_hand, renew
            )
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

    def _reload(
        self, group: Sequence[Recovery], at_hand: AtHand, renew: Keeping
    ) -> dict[str, Answer]:
        decision, policy = self._decision(), self._limits.policy
        # Their old workers are fenced, so these tips no longer move. Damage that happens before the
        # replay is found by the claimer, which recomputes the chain before any user code runs.
        at_hand |= self._keep(group, renew)

        def decide(
            recovery: Recovery, cursor: Cursor[DictRow], now: datetime
        ) -> tuple[AnyEvent, ...]:
            tip = at_hand[recovery.run_id].tip
            events = reload(recovery, decision, tip, policy=policy, now=now)
            if recovery.lifted is LiftOption.ACCEPT_TIP and isinstance(tip, Checkpoint):
                self._runs.realign(cursor, recovery.attempt_id, tip)
            return events

        return self._go_on(group, decide)

    def _replay(
        self, group: Sequence[Recovery], at_hand: AtHand, renew: Keeping
    ) -> dict[str, Answer]:
        # Attempts that are not at hand were reloaded by another sweeper, which is gone.
        at_hand |= self._keep([one for one in group if one.run_id not in at_hand], renew)
        kept = {recovery.run_id: at_hand.pop(recovery.run_id) for recovery in group}
        work = {
            recovery.attempt_id: (recovery.context(), tip)
            for recovery in group
            if isinstance(tip := kept[recovery.run_id].tip, Checkpoint)
        }
        answers = self._replayer.replay(list(work.values()), renew, kept)
        outcomes: dict[str, ReplayOutcome] = dict(zip(work, answers, strict=True))
        decision, policy = self._decision(), self._limits.policy

        def decide(
            recovery: Recovery, _cursor: Cursor[DictRow], now: datetime
        ) -> tuple[AnyEvent, ...]:
            outcome = outcomes.get(recovery.attempt_id)
            if outcome is not None:
                return replay(recovery, decision, outcome, policy=policy, now=now)
            # The tip was there at the reload and is damaged now.
            problem = kept[recovery.run_id].tip
            assert isinstance(problem, CheckpointProblem)
            return lose_tip(recovery, decision, problem, policy=policy, now=now)

        return self._go_on(group, decide)

    def _make_ready(
        self, group: Sequence[Recovery], _at_hand: AtHand, _renew: Keeping
    ) -> dict[str, Answer]:
        decision = self._decision()

        def decide(
            recovery: Recovery, _cursor: Cursor[DictRow], now: datetime
        ) -> tuple[AnyEvent, ...]:
            return make_ready(recovery, decision, now=now)

        answers = self._move(group, decide, is_known=True)
        # A refused stale write appends to a stream without taking the attempt over.
        moved = [one for one in group if isinstance(answers[one.attempt_id], AppendConflict)]
        return answers | self._move(moved, decide)

    def _go_on(self, group: Sequence[Recovery], decide: Decide) -> dict[str, Answer]:
        """Append steps that only advance the stage, without a change of the lease row; move all
        other attempts, and those whose streams have grown."""
        moves, owner = [], sweeper_holder()
        with self._database.transaction() as cursor:
            cursor.execute(BE_BRIEF)
            locked = self._lock(cursor, group)
            mine = [recovery for recovery in group if recovery.attempt_id in locked]
            now = self._ledger.now(cursor)
            for recovery in mine:
                if recovery.lifted is not None:  # deciding may change its row
                    continue
                try:
                    events = decide(recovery, cursor, now)
                except RecoveryJournalError:  # decided again below, which answers with the error
                    continue
                if len(events) == 1 and isinstance(events[0], CheckpointReloaded | Replayed):
                    moves.append(Move(recovery, events, owner, self._limits.sweeper_ttl_s))
            answers: dict[str, Answer] = {
                move.recovery.attempt_id: answer
                for move, answer in zip(moves, self._ledger.go_on(cursor, moves), strict=True)
                if isinstance(answer, Recovery)
            }
        return answers | self._move([one for one in group if one.attempt_id not in answers], decide)

    def _move(
        self, group: Sequence[Recovery], decide: Decide, *, is_known: bool = False
    ) -> dict[str, Answer]:
        """Take a step of the attempts that this sweeper still owns, with their rows locked; load
        each, unless its current state is known."""
        answers: dict[str, Answer] = {recovery.attempt_id: None for recovery in group}
        if not group:
            return answers
        moves, owner = [], sweeper_holder()
        problems: dict[str, RecoveryJournalError] = {}
        with self._database.transaction() as cursor:
            cursor.execute(BE_BRIEF)
            locked = self._lock(cursor, group)
            mine: dict[str, Recovery | RecoveryJournalError] = {
                recovery.attempt_id: recovery for recovery in group if recovery.attempt_id in locked
            }
            if not is_known:
                mine = self._ledger.load(cursor, locked)
            now = self._ledger.now(cursor)
            for attempt_id, recovery in mine.items():
                try:
                    if isinstance(recovery, RecoveryJournalError):
                        raise recovery
                    events = decide(recovery, cursor, now)
                except RecoveryJournalError as error:
                    answers[attempt_id] = problems[attempt_id] = error
                    continue
                moves.append(Move(recovery, events, owner, self._limits.sweeper_ttl_s))
            for move, answer in zip(moves, self._ledger.record(cursor, moves), strict=True):
                answers[move.recovery.attempt_id] = answer
            set_aside(cursor, problems, self._limits.policy)
        return answers

    def _lock(self, cursor: Cursor[DictRow], group: Sequence[Recovery]) -> dict[str, Known]:
        """Lock the rows of the attempts that this sweeper still owns; return what these rows
        know."""
        fences = [(recovery.attempt_id, recovery.fence) for recovery in group]
        return self._ledger.lock_fenced(cursor, fences, LeaseStatus.RECOVERING)

    def _keep(self, group: Sequence[Recovery], renew: Keeping) -> AtHand:
        """Read what the store keeps of these runs, to be at hand until their replay."""
        runs = [recovery.run_id for recovery in group]
        if not runs:
            return {}
        with renew.beside():
            return dict(zip(runs, self._runs.kept(runs), strict=True))

    def _try_to_fail(
        self, step: RecoveryStep, recovery: Recovery, error: RecoveryJournalError
    ) -> Answer:
        """Record a failure where the stream can be written; else set the attempt aside."""
        try:
            return self._fail(step, recovery, error)
        except (StoreBusy, Stop) as second:
            with self._database.transaction() as cursor:
                if self._lock(cursor, [recovery]):
                    set_aside(cursor, {recovery.attempt_id: second}, self._limits.policy)
            return second

    def _fail(self, step: RecoveryStep, recovery: Recovery, error: RecoveryJournalError) -> Answer:
        """Record that a step failed; it is due again after its wait."""

        def decide(
            fresh: Recovery, _cursor: Cursor[DictRow], now: datetime
        ) -> tuple[AnyEvent, ...]:
            return fail_step(
                fresh,
                self._decision(),
                step,
                error_class=type(error).__name__,
                message=message_of(error),
                policy=self._limits.policy,
                now=now,
            )

        return self._move([recovery], decide)[recovery.attempt_id]

    def _decision(self) -> Decision:
        """One decision for a step of the whole batch, as one claim is of many attempts."""
        return Decision(event_id=uuid4().hex, by=actor("sweeper"))
