"""The calls of every process and their replies, a JSON object a line: written before each call and
after it, so that a process killed in between leaves a call that may have happened or not.

The clock is the machine's monotonic one, which all its processes share.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import recovery_journal as rj


class Action(StrEnum):
    """The call."""

    ACQUIRE = "acquire"
    CLAIM = "claim"
    HEARTBEAT = "heartbeat"
    ANNOUNCE = "announce"
    RECORD = "record"
    CHECKPOINT = "checkpoint"
    COMPLETE = "complete"
    GIVE_UP = "give up"
    LOOK = "look"


class Answer(StrEnum):
    """The reply. After UNKNOWN the call may have happened, or may still happen."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Operation(Struct, frozen=True, kw_only=True):
    """One call on one attempt. `ordinal` and `checkpoint_count` are the run's after it, `digest` is
    that of a result. `returned_ns` is None where the answer is unknown. A claim that was asked for
    again under its `dispatch_id` begins with the first time."""

    action: Action
    process: str
    call: int
    invoked_ns: int
    returned_ns: int | None = None
    answer: Answer = Answer.UNKNOWN
    attempt_id: str = ""
    epoch: int = 0
    ordinal: int = 0
    checkpoint_count: int = 0
    digest: str = ""
    dispatch_id: str = ""


ItemT = TypeVar("ItemT")

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Operation)


class History:
    """A folder with a file for each process. A fork writes into a file of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._calls = itertools.count(1)
        self._files: dict[int, int] = {}
        folder.mkdir(exist_ok=True)

    @contextmanager
    def calling(self, action: Action, **given: Any) -> Iterator[dict[str, Any]]:
        """Around a call, with what is known before it; what it returns goes into the dictionary."""
        operation = Operation(
            action=action,
            process=f"{self._name}/{os.getpid()}",
            call=next(self._calls),
            invoked_ns=time.monotonic_ns(),
            **given,
        )
        self._write(operation)
        found: dict[str, Any] = {}
        answer = Answer.UNKNOWN
        try:
            yield found
            answer = Answer.DONE
        except rj.LeaseLost:
            answer = Answer.REFUSED
            raise
        finally:
            if answer is not Answer.UNKNOWN:
                returned_ns = time.monotonic_ns()
                self._write(replace(operation, returned_ns=returned_ns, answer=answer, **found))

    def _write(self, operation: Operation) -> None:
        """In one write, so that lines of several threads never mix."""
        process_id = os.getpid()
        if process_id not in self._files:
            path = self._folder / f"{self._name}-{process_id}.jsonl"
            self._files[process_id] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._files[process_id], _encoder.encode(operation) + b"\n")


def operations(folder: Path) -> list[Operation]:
    """All calls of all processes, without claims that won nothing or whose result is unknown."""
    calls: dict[tuple[str, int], Operation] = {}
    first_asked: dict[str, int] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            operation = _decoder.decode(line)
            calls[operation.process, operation.call] = operation
            if operation.dispatch_id:
                before = first_asked.get(operation.dispatch_id, operation.invoked_ns)
                first_asked[operation.dispatch_id] = min(before, operation.invoked_ns)
    return [
        replace(it, invoked_ns=first_asked[it.dispatch_id]) if it.dispatch_id else it
        for it in calls.values()
        if it.attempt_id
    ]


def by_attempt(found: list[Operation]) -> dict[str, list[Operation]]:
    """The calls on each attempt, in the order in which they began."""
    return grouped(sorted(found, key=lambda it: it.invoked_ns), key=lambda it: it.attempt_id)


def grouped(found: Iterable[ItemT], key: Callable[[ItemT], str]) -> dict[str, list[ItemT]]:
    """Those of each key, in the order in which they are given."""
    groups: dict[str, list[ItemT]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return groups
