"""The limits within which a recovery decides, all of them named."""

from datetime import datetime, timedelta

from msgspec import Struct

from recovery_journal.domain.bounds import LARGEST_NUMBER
from recovery_journal.domain.ranges import (
    YEAR_S,
    Ranges,
    require_kind,
    require_number,
    require_within,
)

RANGES: Ranges = {
    "crash_loop_count": (1, 1_000_000),
    "excuse_limit": (1, 1_000_000),
    "raise_limit": (1, 1_000_000),
    "backoff_s": (0.0, YEAR_S),
    "backoff_limit_s": (0.0, YEAR_S),
    "version_wait_s": (0.0, YEAR_S),
}


class Policy(Struct, frozen=True, kw_only=True):
    """The settings of recoveries that an operator may change.

    `crash_loop_count`: recoveries in a row without progress before the attempt is quarantined.

    `excuse_limit`: losses with most of the fleet, in a row and without progress, before they count
    as a crash loop too: a few runs that kill every worker are indistinguishable from a fleet that
    fails.

    `raise_limit`: tries of a replay that raises before the attempt is quarantined.

    `backoff_s`, `backoff_limit_s`: the first wait before a step is retried, and the longest.

    `version_wait_s`: how long an attempt waits for a program that knows its checkpoint's format, or
    for a worker of its code version, before it is quarantined.

    `may_restart`: whether an attempt without any checkpoint may start from its input again.

    `is_timeout_quarantined`: quarantine attempts past their execution timeout, else end them.
    """

    crash_loop_count: int = 5
    excuse_limit: int = 20
    raise_limit: int = 5
    backoff_s: float = 1.0
    backoff_limit_s: float = 300.0
    version_wait_s: float = 24 * 3600.0
    may_restart: bool = True
    is_timeout_quarantined: bool = False

    def __post_init__(self) -> None:
        require_within(self, RANGES)
        for name in ("may_restart", "is_timeout_quarantined"):
            require_kind(name, getattr(self, name), bool, "True or False")

    def has_waited(self, since: datetime | None, now: datetime) -> bool:
        """Whether the wait for another version has begun, and has been long enough."""
        return since is not None and now - since >= timedelta(seconds=self.version_wait_s)

    def retry_at(self, now: datetime, try_count: int) -> datetime:
        """When the step is retried after its `try_count`-th failure."""
        require_kind("now", now, datetime, "a datetime")
        return now + timedelta(seconds=self.retry_wait_s(try_count))

    def retry_wait_s(self, try_count: int) -> float:
        """The wait, in seconds, after the `try_count`-th failure: exponential back-off."""
        require_number("try_count", try_count, 1, LARGEST_NUMBER)
        doublings = min(try_count - 1, 30)
        return min(self.backoff_s * 2.0**doublings, self.backoff_limit_s)
