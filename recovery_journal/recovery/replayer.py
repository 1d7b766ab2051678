"""Replays tails: the digest chain always, and the user's reducer where one is registered.

A reducer is the user's code, so it runs in a child process under a deadline, for a sweeper and for
a claimer alike. A reducer that raises, dies or never ends costs its own run a try, and costs the
other runs of the cohort or claim nothing.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from recovery_journal.domain.checkpoint import Checkpoint
from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.domain.pipeline import RecoveryContext
from recovery_journal.domain.replay import (
    Reducer,
    ReplayMode,
    ReplayOutcome,
    ReplayResult,
    replay_chain,
)
from recovery_journal.domain.wording import message_of
from recovery_journal.recovery.reducer_child import (
    DEADLINE_PASSED,
    FATAL,
    Folded,
    ReducerChild,
    question,
    unfolded,
)
from recovery_journal.store.keeping import KEEP_NOTHING, KeepAlive
from recovery_journal.store.runs import RunStore, StoredStep
from recovery_journal.store.tips import RunSnapshot
from recovery_journal.values.payload import Values

Work = tuple[RecoveryContext, Checkpoint]

ASKED_AHEAD_BYTES: Final = 48 * 1024
"""Fits into the socket's buffer, so that sending never blocks on a child that may not end."""
ASKED_AHEAD_COUNT: Final = 32

HUNG_LIMIT: Final = 3
"""This many runs of a kind may delay a batch with a reducer that does not end. Later runs of that
kind are retried another time, because a thousand of them would delay the batch for hours."""
POSTPONED: Final = "Postponed"


class TailReplayer:
    """Recomputes chains, and folds where a reducer knows the run's kind."""

    def __init__(
        self, runs: RunStore, reducers: Mapping[str, Reducer], *, reducer_s: float
    ) -> None:
        self._runs = runs
        self._reducers = reducers
        self._reducer_s = reducer_s

    def replay(
        self,
        work: Sequence[Work],
        keep_alive: KeepAlive = KEEP_NOTHING,
        kept: Mapping[str, RunSnapshot] = MappingProxyType({}),
    ) -> Sequence[ReplayOutcome]:
        """Replay each tail. `keep_alive` is called between runs that are folded. `kept` are
        payloads at hand, by run; others are read when they are needed."""
        outcomes = [
            replay_chain(context.attempt_id, tip, context.expected) for context, tip in work
        ]
        folding = [
            index
            for index, (context, _tip) in enumerate(work)
            if context.kind in self._reducers and outcomes[index].result is ReplayResult.REPLAYED
        ]
        for index, folded in zip(
            folding, self._fold([work[it] for it in folding], keep_alive, kept), strict=True
        ):
            outcomes[index] = _with_fold(outcomes[index], folded)
        return outcomes

    @contextmanager
    def folding(self) -> Iterator["TailFolding"]:
        """Within this context, tails can be folded one after the other, for the state that each
        folds to."""
        folding = TailFolding(self._reducers, self._runs.values, self._reducer_s)
        try:
            yield folding
        finally:
            folding.close()

    def has_reducer(self, kind: str) -> bool:
        """Whether this process can fold runs of this kind."""
        return kind in self._reducers

    def stored_start(self, tip: Checkpoint, kept: RunSnapshot, keep_alive: KeepAlive) -> bytes:
        """The stored state to fold from: the saved one, or the run's input where none was saved."""
        if tip.state_digest is None:
            return self._runs.stored_input(tip.run_id, kept, keep_alive)
        return self._runs.stored_state(tip, kept.state, keep_alive)

    def _fold(
        self, work: Sequence[Work], keep_alive: KeepAlive, kept: Mapping[str, RunSnapshot]
    ) -> list[Folded]:
        answers: list[Folded] = []
        with self.folding() as folding:
            while len(answers) < len(work):
                answers += self._fold_ahead(folding, work[len(answers) :], keep_alive, kept)
        return answers

    def _fold_ahead(
        self,
        folding: "TailFolding",
        work: Sequence[Work],
        keep_alive: KeepAlive,
        kept: Mapping[str, RunSnapshot],
    ) -> list[Folded]:
        """Fold as many runs as one child survives; it is asked ahead of its answers."""
        questions = (
            folding.refusal(context.kind) or self._question(context, tip, kept, keep_alive)
            for context, tip in work
        )
        answers: list[Folded] = []
        next_one = next(questions, None)
        asked: deque[Folded | int] = deque()
        while next_one is not None or asked:
            while next_one is not None and _may_ask(next_one, asked):
                asked.append(next_one if isinstance(next_one, Folded) else folding.ask(next_one))
                next_one = next(questions, None)
            keep_alive(0)
            first = asked.popleft()
            if isinstance(first, int):
                first = folding.answer(work[len(answers)][0].kind, keep_alive)
            answers.append(first)
            if first.error_class in FATAL:
                break
        return answers

    def _question(
        self,
        context: RecoveryContext,
        tip: Checkpoint,
        kept: Mapping[str, RunSnapshot],
        keep_alive: KeepAlive,
    ) -> Folded | bytes:
        """The question to the child for one run, or the reason why there can be none."""
        at_hand = kept.get(tip.run_id) or RunSnapshot(tip=tip)
        try:
            state = self.stored_start(tip, at_hand, keep_alive)
            tail = self._runs.stored_tail(tip, at_hand.outputs, keep_alive)
        except RecoveryJournalError as error:
            return unfolded(error)
        return question(context.kind, state, tail, wants_state=False)


class TailFolding:
    """Folds in a child that begins with the first tail and is replaced once lost."""

    def __init__(self, reducers: Mapping[str, Reducer], values: Values, reducer_s: float) -> None:
        self._reducers = reducers
        self._values = values
        self._reducer_s = reducer_s
        self._child: ReducerChild | None = None
        self._hung: Counter[str] = Counter()

    def fold(
        self, kind: str, state: bytes, tail: Sequence[StoredStep], keep_alive: KeepAlive
    ) -> Folded:
        """Fold a tail onto a state with the kind's reducer. `keep_alive` is called meanwhile."""
        if refused := self.refusal(kind):
            return refused
        keep_alive(0)
        self.ask(question(kind, state, tail, wants_state=True))
        return self.answer(kind, keep_alive)

    def refusal(self, kind: str) -> Folded | None:
        """Why no run of this kind is folded now, which is no evidence against any; None where there
        is a child to ask."""
        if self._hung[kind] >= HUNG_LIMIT:
            message = f"the reducer of kind {kind!r} did not end for {HUNG_LIMIT} others"
            return Folded(error_class=POSTPONED, message=message)
        try:
            self._child = self._child or ReducerChild(self._reducers, self._values)
        except OSError as error:
            message = f"no process for a reducer: {message_of(error)}"
            return Folded(error_class=POSTPONED, message=message)
        return None

    def ask(self, question: bytes) -> int:
        """Send a question to the child; return how many bytes are in flight."""
        assert self._child is not None, "nothing is asked after a refusal"
        self._child.ask(question)
        return len(question)

    def answer(self, kind: str, keep_alive: KeepAlive) -> Folded:
        """The answer to the oldest question, which was about a run of this kind. After an error
        that is fatal to the child, the others have none."""
        assert self._child is not None, "a lost child has no more answers"
        folded = self._child.answer(self._reducer_s, keep_alive)
        self._hung[kind] += folded.error_class == DEADLINE_PASSED
        if folded.error_class in FATAL:
            self.close()
        return folded

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None


def _may_ask(next_one: Folded | bytes, asked: Sequence[Folded | int]) -> bool:
    """Whether a question may be sent before the pending ones are answered."""
    if not asked or isinstance(next_one, Folded):
        return len(asked) < ASKED_AHEAD_COUNT
    on_their_way = sum(size for size in asked if isinstance(size, int))
    return len(asked) < ASKED_AHEAD_COUNT and on_their_way + len(next_one) <= ASKED_AHEAD_BYTES


def _with_fold(outcome: ReplayOutcome, folded: Folded) -> ReplayOutcome:
    if folded.error_class:
        return replace(
            outcome,
            result=_result_of(folded),
            mode=ReplayMode.FOLD,
            error_class=folded.error_class,
            message=folded.message,
        )
    return replace(outcome, mode=ReplayMode.FOLD, state_digest=folded.state_digest)


def _result_of(failed: Folded) -> ReplayResult:
    if failed.is_unreadable:
        return ReplayResult.UNREADABLE
    is_postponed = failed.error_class == POSTPONED
    return ReplayResult.UNAVAILABLE if is_postponed else ReplayResult.RAISED
