"""A worker's claim on an attempt, and the identities around it."""

from enum import StrEnum

from msgspec import Struct

from recovery_journal.domain.bounds import Moment, Number, Seconds


class LeaseStatus(StrEnum):
    """The status of a lease row; only `held` accepts a worker's writes."""

    HELD = "held"
    RECOVERING = "recovering"
    READY = "ready"
    WAITING = "waiting"
    QUARANTINED = "quarantined"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_STATUSES = (
    LeaseStatus.HELD,
    LeaseStatus.RECOVERING,
    LeaseStatus.READY,
    LeaseStatus.WAITING,
    LeaseStatus.QUARANTINED,
)


class LossReason(StrEnum):
    """The evidence on which a lease was declared lost."""

    TTL = "ttl"
    SESSION_LOST = "session_lost"
    STALLED = "stalled"
    REPORTED = "reported"
    HANDED_BACK = "handed_back"


class Actor(Struct, frozen=True, kw_only=True, gc=False):
    """The author of an event: a program's role on a host, and the person or worker behind it."""

    role: str
    host: str
    pid: Number
    program: str
    name: str | None = None


class Incarnation(Struct, frozen=True, kw_only=True, gc=False):
    """One life of a worker process; a restarted pod has the same worker id and a new one."""

    host: str
    boot_id: str
    pid: Number
    started: str

    @property
    def token(self) -> str:
        """The same life has the same token; another life never has it."""
        return f"{self.boot_id}:{self.pid}:{self.started}"


class Holder(Struct, frozen=True, kw_only=True, gc=False):
    """The worker that holds, or held, a lease."""

    worker_id: str
    incarnation: Incarnation


class Fence(Struct, frozen=True, kw_only=True, gc=False):
    """An ordered number and a random id; a write must match both. `native` is a foreign runtime's
    own opaque token."""

    epoch: Number
    lease_id: str
    native: str | None = None


class Progress(Struct, frozen=True, kw_only=True, gc=False):
    """How far a worker reports its run has come: the last recorded run step, the chain digest
    there, and how many checkpoints were written."""

    ordinal: Number
    digest: str
    checkpoint_count: Number = 0


class SessionLoss(Struct, frozen=True, kw_only=True, gc=False):
    """The observations that one unbroken session of a sweeper made of a worker's session lock: last
    held, first gone, and gone for longer than the grace. Times are the store's clock."""

    session_lock: Number
    held_at: Moment
    gone_at: Moment
    grace_s: Seconds


class LeaseView(Struct, frozen=True, kw_only=True, gc=False):
    """A lease as it was seen, with everything that an auditor may need about its loss. Times are
    the store's clock, named by `clock`."""

    attempt_id: str
    run_id: str
    kind: str
    holder: Holder
    fence: Fence
    granted_at: Moment
    renewed_at: Moment
    expires_at: Moment
    seen_at: Moment
    ttl_s: Seconds
    grace_s: Seconds
    clock: str = "database"
    progress: Progress | None = None
    is_confirmed: bool = False
    code_version: str = ""
    dispatch_id: str | None = None
