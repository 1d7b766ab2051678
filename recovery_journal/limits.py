"""Every duration and count that bounds the journal's work, with its default."""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from recovery_journal.domain.bounds import Seconds
from recovery_journal.domain.error_texts import ErrorTexts
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.ranges import YEAR_S, require_settings

Ttl: TypeAlias = Annotated[float, Meta(ge=0.1, le=YEAR_S)]
Deadline: TypeAlias = Annotated[float, Meta(ge=0.01, le=YEAR_S)]


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that an operator may set. Times are seconds by the database's clock.

    `ttl_s`: how long a lease holds without renewal. `grace_s`: how long after that it counts as
    lost.

    `session_grace_s`: how long a worker's session lock must be gone before its leases are lost; a
    living worker whose connection was cut takes another lock within it. `session_poll_s`: how often
    a sweeper polls these locks.

    `sweeper_ttl_s`: as `ttl_s`, for the leases that a sweeper is recovering.

    `cohort_size`: how many leases are driven through a step together.

    `reducer_s`: how long one run's tail may take to fold.

    `hook_s`: how long a command that is called for a quarantine may take.

    `state_bytes`: the largest state that is loaded.

    `claim_bytes`: how many bytes of stored inputs, states and tails one claim loads, and a sweeper
    at a time; always at least one attempt, whatever its size.

    `fleet_workers`, `fleet_share`: a loss of at least this many workers, and of this share of all
    that hold leases, in one sweep is a loss of the fleet, and no fault of the runs.

    `error_texts`: where the texts of failures are kept: in a `table` that `prune` erases, or in the
    `log` for ever.
    """

    ttl_s: Ttl = 30.0
    grace_s: Seconds = 5.0
    session_grace_s: Seconds = 0.75
    session_poll_s: Annotated[float, Meta(ge=0.001, le=YEAR_S)] = 0.1
    sweeper_ttl_s: Ttl = 30.0
    cohort_size: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    reducer_s: Deadline = 10.0
    hook_s: Deadline = 30.0
    state_bytes: Annotated[int, Meta(ge=1, le=1024**3)] = 64 * 1024 * 1024
    claim_bytes: Annotated[int, Meta(ge=1, le=1024**4)] = 64 * 1024 * 1024
    fleet_workers: Annotated[int, Meta(ge=1, le=1_000_000)] = 3
    fleet_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    error_texts: ErrorTexts = ErrorTexts.TABLE
    policy: Policy = Policy()

    def __post_init__(self) -> None:
        require_settings(self)


DEFAULTS = Limits()
