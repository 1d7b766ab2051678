"""Replaying tails: the digest chain always, and the user's reducer where one is registered.

A reducer is the user's code, so it runs in a child process under a deadline: one that raises, dies
or never ends costs its own run a try, and the others of the cohort nothing.
"""

import multiprocessing
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from domain.checkpoint import Checkpoint
from domain.errors import RecoveryJournalError
from domain.pipeline import RecoveryContext
from domain.ports import Reducer
from domain.replay import ReplayMode, ReplayOutcome, ReplayResult, replay_chain
from domain.wording import message_of
from recovery_journal.leases.runs import RunStore, TailStep
from recovery_journal.leases.tips import Kept
from recovery_journal.payload import Value, encode

Work = tuple[RecoveryContext, Checkpoint]


class Folded(Struct, frozen=True, kw_only=True):
    """What a child process answers for one run: a digest, or what went wrong."""

    state_digest: str | None = None
    error_class: str = ""
    message: str = ""


class TailReplayer:
    """Recomputes chains, and folds where a reducer knows the run's kind. Implements `Replayer`."""

    def __init__(
        self,
        runs: RunStore,
        reducers: Mapping[str, Reducer],
        *,
        reducer_s: float,
        state_bytes: int,
    ) -> None:
        self._runs = runs
        self._reducers = reducers
        self._reducer_s = reducer_s
        self._state_bytes = state_bytes

    def replay(
        self,
        work: Sequence[Work],
        keep_alive: Callable[[], object] = lambda: None,
        kept: Mapping[str, Kept] = MappingProxyType({}),
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

    def fold(self, kind: str, state: Value, tail: Sequence[TailStep]) -> Value:
        """Fold a tail onto a state, here and now, by the kind's reducer."""
        reducer = self._reducers[kind]
        for step in tail:
            state = reducer(state, step.name, step.output)
        return state

    def has_reducer(self, kind: str) -> bool:
        """Whether this process can fold runs of this kind."""
        return kind in self._reducers

    def start_state(self, tip: Checkpoint, kept: Kept) -> Value:
        """The state to fold from: the saved one, or the run's input where none was saved."""
        if tip.state_digest is None:
            return self._runs.input(tip.run_id, kept)
        return self._runs.load_state(tip, limit_bytes=self._state_bytes, kept=kept.state)

    def _fold(
        self, work: Sequence[Work], keep_alive: Callable[[], object], kept: Mapping[str, Kept]
    ) -> list[Folded]:
        """One child for as many runs as it survives; a new one after each that it does not."""
        answers: list[Folded] = []
        while len(answers) < len(work):
            answers += self._fold_in_child(work[len(answers) :], keep_alive, kept)
        return answers

    def _fold_in_child(
        self, work: Sequence[Work], keep_alive: Callable[[], object], kept: Mapping[str, Kept]
    ) -> list[Folded]:
        here, there = _context.Pipe(duplex=True)
        child = _context.Process(target=_serve, args=(here, there, self._reducers), daemon=True)
        child.start()
        there.close()
        answers: list[Folded] = []
        try:
            questions = (self._question(context, tip, kept) for context, tip in work)
            question = next(questions, None)
            asked: deque[Folded | int] = deque()
            while question is not None or asked:
                while question is not None and _may_ask(question, asked):
                    asked.append(_ask(here, question))
                    question = next(questions, None)
                keep_alive()
                first = asked.popleft()
                answers.append(first if isinstance(first, Folded) else self._answer(here, child))
                if answers[-1].error_class in FATAL:
                    break
        finally:
            here.close()
            child.kill()
            child.join()
            child.close()
        return answers

    def _question(
        self, context: RecoveryContext, tip: Checkpoint, kept: Mapping[str, Kept]
    ) -> Folded | bytes:
        """What the child is asked for one run, or why it cannot be asked."""
        at_hand = kept.get(tip.run_id) or Kept(tip=tip)
        try:
            state = self.start_state(tip, at_hand)
            tail = self._runs.tail(tip, at_hand.outputs)
        except RecoveryJournalError as error:
            return Folded(error_class=type(error).__name__, message=message_of(error))
        return msgspec.msgpack.encode(
            (context.kind, state, [(step.name, step.output) for step in tail])
        )

    def _answer(self, here: Connection, child: BaseProcess) -> Folded:
        try:
            if not here.poll(self._reducer_s):
                message = f"no answer within {self._reducer_s:g} s"
                return Folded(error_class=DEADLINE_PASSED, message=message)
            return msgspec.msgpack.decode(here.recv_bytes(), type=Folded)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            child.join(self._reducer_s)
            return Folded(error_class=CHILD_DIED, message=f"exit code {child.exitcode}")


DEADLINE_PASSED = "DeadlinePassed"
CHILD_DIED = "ChildDied"
ASKED_AHEAD_BYTES: Final = 48 * 1024
"""Fits into the socket's buffer, so that asking never waits for a child that may not end."""
ASKED_AHEAD_COUNT: Final = 32
FATAL = frozenset({DEADLINE_PASSED, CHILD_DIED})

# A fork knows the user's reducers as they are, lambdas too; it uses nothing else of its parent.
_context = multiprocessing.get_context("fork")


def _serve(inherited: Connection, questions: Connection, reducers: Mapping[str, Reducer]) -> None:
    """The child: fold what is asked, answer with digests, end with the parent."""
    inherited.close()
    while True:
        try:
            kind, state, tail = msgspec.msgpack.decode(questions.recv_bytes())
        except EOFError:
            os._exit(0)
        questions.send_bytes(msgspec.msgpack.encode(_folded(reducers[kind], state, tail)))


def _may_ask(question: Folded | bytes, asked: Sequence[Folded | int]) -> bool:
    """Whether a question may go on its way before those that were asked are answered."""
    if not asked or isinstance(question, Folded):
        return len(asked) < ASKED_AHEAD_COUNT
    on_their_way = sum(size for size in asked if isinstance(size, int))
    return len(asked) < ASKED_AHEAD_COUNT and on_their_way + len(question) <= ASKED_AHEAD_BYTES


def _ask(here: Connection, question: Folded | bytes) -> Folded | int:
    """Ask the child; how many bytes are on their way."""
    if isinstance(question, Folded):
        return question
    # A child that is gone is noticed by whoever waits for the first answer that does not come.
    with suppress(BrokenPipeError, ConnectionResetError):
        here.send_bytes(question)
    return len(question)


def _folded(reducer: Reducer, state: Value, tail: Sequence[tuple[str, Value]]) -> Folded:
    try:
        for name, output in tail:
            state = reducer(state, name, output)
        return Folded(state_digest=encode(state, name="the folded state").digest)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; it is recorded
        traceback.print_exc(file=sys.stderr)
        return Folded(error_class=type(error).__name__, message=message_of(error))


def _with_fold(outcome: ReplayOutcome, folded: Folded) -> ReplayOutcome:
    if folded.error_class:
        return replace(
            outcome,
            result=ReplayResult.RAISED,
            mode=ReplayMode.FOLD,
            error_class=folded.error_class,
            message=folded.message,
        )
    return replace(outcome, mode=ReplayMode.FOLD, state_digest=folded.state_digest)
