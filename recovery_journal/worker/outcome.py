"""The outcome of an attempt that a worker ran, and the worker's notices on the way."""

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct


class Outcome(StrEnum):
    """How a worker's turn at an attempt ended."""

    COMPLETED = "completed"
    """The function's result is recorded."""
    FAILED = "failed"
    """The function raised, and the attempt is recorded as failed."""
    WAITING = "waiting"
    """The function let the attempt wait for a person."""
    HANDED_BACK = "handed_back"
    """The lease went back to the pipeline: the worker drained, or the function asked for it."""
    LOST = "lost"
    """The fence was void: another worker owns the attempt, or a person or the timeout ended it."""
    FENCED = "fenced"
    """No heartbeat was acknowledged for a TTL, so the worker killed its own child."""
    DIED = "died"
    """The child ended without a result: a signal, out of memory, `os._exit`."""
    STALLED = "stalled"
    """No progress for too long, so the child was killed."""
    INTERRUPTED = "interrupted"
    """A write of the function could not be made now: the server was unavailable or busy."""
    UNSTARTED = "unstarted"
    """The lease could not be renewed before the start, so the function was never called."""


class NoticeKind(StrEnum):
    """The subject of a worker's notice."""

    STARTED = "started"
    ENDED = "ended"
    PROBLEM = "problem"
    DRAINING = "draining"


class Notice(Struct, frozen=True, kw_only=True):
    """One sentence of a worker, for its observer; `text` is for people."""

    kind: NoticeKind
    worker_id: str
    text: str
    attempt_id: str | None = None
    outcome: Outcome | None = None


NoticeObserver = Callable[[Notice], object]
"""The worker's observer. Called in the thread that runs the worker."""
