"""The limits within which a recovery decides, all of them named."""

from datetime import datetime, timedelta
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from recovery_journal.domain.bounds import LARGEST_NUMBER, Seconds
from recovery_journal.domain.ranges import require_kind, require_number, require_settings

Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


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

    crash_loop_count: Count = 5
    excuse_limit: Count = 20
    raise_limit: Count = 5
    backoff_s: Seconds = 1.0
    backoff_limit_s: Seconds = 300.0
    version_wait_s: Seconds = 24 * 3600.0
    may_restart: bool = True
    is_timeout_quarantined: bool = False

    def __post_init__(self) -> None:
        require_settings(self)

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
