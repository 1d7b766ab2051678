"""What became of an attempt that a worker ran, and what the worker says on the way."""

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
    """The lease went back to the pipeline: the worker drained, or the function said so."""
    LOST = "lost"
    """The fence was void: somebody else owns the attempt, or a person or the timeout ended it."""
    FENCED = "fenced"
    """No heartbeat was acknowledged for a TTL, so the worker killed its own child."""
    DIED = "died"
    """The child ended without a last word: a signal, out of memory, `os._exit`."""
    STALLED = "stalled"
    """No progress for too long, so the child was killed."""
    INTERRUPTED = "interrupted"
    """A write of the function's could not be made now: the server went away or was busy."""
    UNSTARTED = "unstarted"
    """The lease could not be renewed before the start, so the function was never called."""


class NoticeKind(StrEnum):
    """What a worker speaks of."""

    STARTED = "started"
    ENDED = "ended"
    PROBLEM = "problem"
    DRAINING = "draining"


class Notice(Struct, frozen=True, kw_only=True):
    """One sentence of a worker's, for whoever watches it; `text` is for people."""

    kind: NoticeKind
    worker_id: str
    text: str
    attempt_id: str | None = None
    outcome: Outcome | None = None


Tell = Callable[[Notice], object]
"""Who is told. Called in the thread that runs the worker."""
