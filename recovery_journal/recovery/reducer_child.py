"""The process in which the user's reducers run: a fork that can be killed.

A reducer that raises, dies or never ends costs its own run a try, and costs other runs nothing.
"""

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import msgspec
from msgspec import Struct

from recovery_journal.domain.errors import CodecMissing, RecoveryJournalError
from recovery_journal.domain.replay import Reducer
from recovery_journal.domain.wording import class_of, message_of
from recovery_journal.process.callables import finished
from recovery_journal.process.forks import ForkedChild, ending_own_forks
from recovery_journal.store.runs import StoredStep
from recovery_journal.values.payload import Values

DEADLINE_PASSED: Final = "DeadlinePassed"
CHILD_DIED: Final = "ChildDied"
FATAL: Final = frozenset({DEADLINE_PASSED, CHILD_DIED})
"""After these errors the child is unusable."""

KEEP_ALIVE_S: Final = 0.1
"""How often a caller that waits for an answer calls `keep_alive`."""


class Folded(Struct, frozen=True, kw_only=True):
    """The child's answer for one run: the canonical digest of the folded state and, on request, the
    encoded state; or the error. `is_unreadable` means that this process lacks a codec, which is no
    failure of the reducer."""

    state_digest: str | None = None
    state: bytes | None = None
    error_class: str = ""
    message: str = ""
    is_unreadable: bool = False


def unfolded(error: RecoveryJournalError) -> Folded:
    """The answer where a payload cannot be read, so that no reducer is called."""
    return Folded(
        error_class=type(error).__name__,
        message=message_of(error),
        is_unreadable=isinstance(error, CodecMissing),
    )


class ReducerChild(ForkedChild):
    """A fork that has the user's reducers as they are, lambdas too; it uses nothing else of its
    parent, and dies with it."""

    def __init__(self, reducers: Mapping[str, Reducer], values: Values) -> None:
        super().__init__(partial(_live, reducers, values))

    def ask(self, question: bytes) -> None:
        """Send a question. If the child is gone, the caller notices when it waits for the
        answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.link.send_bytes(question)

    def answer(self, limit_s: float, keep_alive: Callable[[int], object]) -> Folded:
        """The answer to the oldest question. `keep_alive` is called during the wait."""
        deadline = time.monotonic() + limit_s
        try:
            while not self.link.poll(min(KEEP_ALIVE_S, max(deadline - time.monotonic(), 0))):
                keep_alive(0)
                if time.monotonic() >= deadline:
                    message = f"no answer within {limit_s:g} s"
                    return Folded(error_class=DEADLINE_PASSED, message=message)
            return msgspec.msgpack.decode(self.link.recv_bytes(), type=Folded)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.kill()
            return Folded(error_class=CHILD_DIED, message=self._death)

    @property
    def _death(self) -> str:
        if self.exit_code is None:
            return "another part of the program took its status"
        return f"exit code {self.exit_code}"


def question(kind: str, state: bytes, tail: Sequence[StoredStep], *, wants_state: bool) -> bytes:
    """Encode the question for one run; payloads are passed on as stored, to be decoded there."""
    return msgspec.msgpack.encode((kind, state, tail, wants_state))


def _live(reducers: Mapping[str, Reducer], values: Values, questions: Connection) -> int:
    """The child's whole life: fold each question, end with the parent."""
    with suppress(EOFError):  # the parent is gone
        while True:
            kind, state, tail, wants_state = msgspec.msgpack.decode(questions.recv_bytes())
            folded = _folded(reducers[kind], values, state, tail, wants_state=wants_state)
            questions.send_bytes(msgspec.msgpack.encode(folded))
    return 0


def _folded(
    reducer: Reducer,
    values: Values,
    start: bytes,
    tail: Sequence[tuple[int, str, bytes]],
    *,
    wants_state: bool,
) -> Folded:
    try:
        state = values.decode_digested(start, what="the state to fold from")
        outputs = [
            (name, values.decode_digested(output, what=f"the output of run step {ordinal}"))
            for ordinal, name, output in tail
        ]
    except RecoveryJournalError as error:
        return unfolded(error)
    try:
        with ending_own_forks():
            for name, output in outputs:
                state = finished("the reducer", reducer(state, name, output))
        digest = values.canonical_digest(state, name="the folded state")
        folded = values.encode(state, name="the folded state") if wants_state else None
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; it is recorded
        traceback.print_exc(file=sys.stderr)
        return Folded(error_class=class_of(error), message=message_of(error))
    return Folded(state_digest=digest, state=folded.encoded if folded else None)
