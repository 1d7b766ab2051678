"""The process in which the user's reducers run: a fork that can be killed.

A reducer that raises, dies or never ends costs its own run a try, and costs other runs nothing.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from recovery_journal.domain.errors import CodecMissing, RecoveryJournalError
from recovery_journal.domain.replay import Reducer
from recovery_journal.domain.wording import class_of, message_of
from recovery_journal.process.callables import finished
from recovery_journal.process.forks import SignalMask, fork_in_group
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


class ReducerChild:
    """A fork that has the user's reducers as they are, lambdas too; it uses nothing else of its
    parent, and dies with it."""

    def __init__(self, reducers: Mapping[str, Reducer], values: Values) -> None:
        self._here, there = Pipe(duplex=True)
        try:
            self._pid = fork_in_group(partial(_live, self._here, there, reducers, values))
        except OSError:  # no more processes for us
            self._here.close()
            raise
        finally:
            there.close()

    def ask(self, question: bytes) -> None:
        """Send a question. If the child is gone, the caller notices when it waits for the
        answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._here.send_bytes(question)

    def answer(self, limit_s: float, keep_alive: Callable[[int], object]) -> Folded:
        """The answer to the oldest question. `keep_alive` is called during the wait."""
        deadline = time.monotonic() + limit_s
        try:
            while not self._here.poll(min(KEEP_ALIVE_S, max(deadline - time.monotonic(), 0))):
                keep_alive(0)
                if time.monotonic() >= deadline:
                    message = f"no answer within {limit_s:g} s"
                    return Folded(error_class=DEADLINE_PASSED, message=message)
            return msgspec.msgpack.decode(self._here.recv_bytes(), type=Folded)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return Folded(error_class=CHILD_DIED, message=self._end())

    def close(self) -> None:
        """Kill the child, if it is alive; return once it is gone."""
        if not self._here.closed:
            self._end()

    def _end(self) -> str:
        """Kill and reap the child; return in words how it ended."""
        self._here.close()
        # macOS refuses to signal a group that has ended but is not reaped.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:  # SIGCHLD is ignored, or other code waits for every child
            return "another part of the program took its status"
        return f"exit code {os.waitstatus_to_exitcode(status)}"


def question(kind: str, state: bytes, tail: Sequence[StoredStep], *, wants_state: bool) -> bytes:
    """Encode the question for one run; payloads are passed on as stored, to be decoded there."""
    return msgspec.msgpack.encode((kind, state, tail, wants_state))


def _live(
    inherited: Connection,
    questions: Connection,
    reducers: Mapping[str, Reducer],
    values: Values,
    mask: SignalMask,
) -> NoReturn:
    """The child's whole life: fold each question, end with the parent. It never returns."""
    try:
        inherited.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while True:
            kind, state, tail, wants_state = msgspec.msgpack.decode(questions.recv_bytes())
            folded = _folded(reducers[kind], values, state, tail, wants_state=wants_state)
            questions.send_bytes(msgspec.msgpack.encode(folded))
    except EOFError:  # the parent is gone
        os._exit(0)


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
    except CodecMissing as lacking:
        message, kind = message_of(lacking), type(lacking).__name__
        return Folded(error_class=kind, message=message, is_unreadable=True)
    except RecoveryJournalError as error:
        return Folded(error_class=type(error).__name__, message=message_of(error))
    try:
        for name, output in outputs:
            state = finished("the reducer", reducer(state, name, output))
        digest = values.canonical_digest(state, name="the folded state")
        folded = values.encode(state, name="the folded state") if wants_state else None
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; it is recorded
        traceback.print_exc(file=sys.stderr)
        return Folded(error_class=class_of(error), message=message_of(error))
    return Folded(state_digest=digest, state=folded.encoded if folded else None)
