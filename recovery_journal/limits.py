"""Every duration and count that bounds the journal's work, with its default."""

from msgspec import Struct

from recovery_journal.domain.error_texts import ErrorTexts
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.ranges import YEAR_S, Ranges, require_kind, require_within

RANGES: Ranges = {
    "ttl_s": (0.1, YEAR_S),
    "grace_s": (0.0, YEAR_S),
    "session_grace_s": (0.0, YEAR_S),
    "session_poll_s": (0.001, YEAR_S),
    "sweeper_ttl_s": (0.1, YEAR_S),
    "cohort_size": (1, 10_000),
    "reducer_s": (0.01, YEAR_S),
    "hook_s": (0.01, YEAR_S),
    "state_bytes": (1, 1024**3),
    "claim_bytes": (1, 1024**4),
    "fleet_workers": (1, 1_000_000),
    "fleet_share": (0.0, 1.0),
}


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

    ttl_s: float = 30.0
    grace_s: float = 5.0
    session_grace_s: float = 0.75
    session_poll_s: float = 0.1
    sweeper_ttl_s: float = 30.0
    cohort_size: int = 1_000
    reducer_s: float = 10.0
    hook_s: float = 30.0
    state_bytes: int = 64 * 1024 * 1024
    claim_bytes: int = 64 * 1024 * 1024
    fleet_workers: int = 3
    fleet_share: float = 0.5
    error_texts: ErrorTexts = ErrorTexts.TABLE
    policy: Policy = Policy()

    def __post_init__(self) -> None:
        require_within(self, RANGES)
        require_kind("error_texts", self.error_texts, ErrorTexts, "one of ErrorTexts")
        require_kind("policy", self.policy, Policy, "a Policy")


DEFAULTS = Limits()
