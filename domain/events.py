"""The events of one attempt's stream: what happened to its ownership, in order.

Each is immutable and named by a past participle. Its tag is stored for ever and does not depend on
classes or modules; a changed meaning gets a new tag, a new field gets a default. No payload is ever
in an event: ids, digests, names, numbers and times only (rule R1). The text of an error may quote
one, so the log keeps a digest of it (`domain.error_texts`). The database adds `recorded_at`, so
that no writer's clock is trusted.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct

from recovery_journal.domain.bounds import LARGEST_NUMBER, Moment, Number, Seconds
from recovery_journal.domain.checkpoint import CheckpointRef, InDoubt
from recovery_journal.domain.lease import Actor, Fence, Holder, LeaseView, LossReason, SessionLoss
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.replay import ReplayMode

FIRST_VERSION: Final = 1
"""The version of the event with which each stream begins."""


# Events and their parts are frozen, so none can be part of a cycle: where many live at once, as in
# a mass crash or a rebuild, exempting them from the search for cycles saves a tenth of the work.
class RecoveryEvent(Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """The common fields of every event: its stream and place there, its author, its decision and
    the reason.

    `event_id` is drawn once per decision, so that a retry after a lost reply finds it.
    """

    step: ClassVar[RecoveryStep | None] = None

    originator_id: str
    originator_version: Annotated[int, Meta(ge=FIRST_VERSION, le=LARGEST_NUMBER)]
    event_id: str
    run_id: str
    recorded_by: Actor
    reason: str = ""
    trace_id: str | None = None


class LeaseGranted(RecoveryEvent, frozen=True, kw_only=True, tag="lease-granted"):
    """A worker opened the attempt and holds its first lease."""

    holder: Holder
    fence: Fence
    ttl_s: Seconds
    kind: str
    code_version: str
    attempt_no: Number
    input_digest: str
    tenant: str = ""
    priority: Number = 0
    timeout_s: Seconds | None = None


class LeaseExpired(RecoveryEvent, frozen=True, kw_only=True, tag="lease-expired"):
    """The lease is lost, so the worker's claim is void; the whole lease as it was seen is the
    evidence. `fence` is the new one, where it was taken in the same transaction.

    `is_fleet_wide` means that most of the fleet was lost at once, which is no fault of the run.
    `session` is the evidence beside the lease, where the worker's session lock was gone.
    """

    step: ClassVar[RecoveryStep | None] = RecoveryStep.LEASE_EXPIRED

    lease: LeaseView
    loss: LossReason
    recovery_no: Number
    fence: Fence | None = None
    is_fleet_wide: bool = False
    tenant: str = ""
    session: SessionLoss | None = None


class SeizeReason(StrEnum):
    """Why a fence was replaced outside a loss."""

    FOREIGN = "foreign"
    SWEEPER_LOST = "sweeper_lost"
    RETRY_DUE = "retry_due"


class Seized(RecoveryEvent, frozen=True, kw_only=True, tag="seized"):
    """A foreign lease was fenced, or a recovery was taken over from another sweeper."""

    recovery_no: Number
    why: SeizeReason
    fence: Fence
    from_fence: Fence


class TipStanding(StrEnum):
    """How the tip compares with the progress that the lost worker reported."""

    UNREPORTED = "unreported"
    EQUAL = "equal"
    AHEAD = "ahead"
    BEHIND = "behind"


class StartPoint(StrEnum):
    """The point from which the next worker starts."""

    TIP = "tip"
    INPUT = "input"


class CheckpointReloaded(RecoveryEvent, frozen=True, kw_only=True, tag="checkpoint-reloaded"):
    """The run's tip was read; without a checkpoint, `ref` is None and the input is the start.

    `newest_epoch` is the newest epoch that wrote the checkpoint or the tail after it.
    """

    step: ClassVar[RecoveryStep | None] = RecoveryStep.CHECKPOINT_RELOAD

    recovery_no: Number
    ref: CheckpointRef | None
    ordinal: Number
    digest: str
    input_digest: str
    standing: TipStanding
    to_ordinal: Number
    state_digest: str | None = None
    written_by_epoch: Number | None = None
    code_version: str = ""
    in_doubt: tuple[InDoubt, ...] = ()
    newest_epoch: Number | None = None


class Replayed(RecoveryEvent, frozen=True, kw_only=True, tag="replayed"):
    """The tail was replayed. Whether that proves anything is derived from the two digests."""

    step: ClassVar[RecoveryStep | None] = RecoveryStep.REPLAY

    recovery_no: Number
    mode: ReplayMode
    from_ordinal: Number
    to_ordinal: Number
    digest: str
    expected_digest: str | None = None
    expected_from: str = "none"
    state_digest: str | None = None


class ReadyForDispatch(RecoveryEvent, frozen=True, kw_only=True, tag="ready-for-dispatch"):
    """The attempt may be claimed: its checkpoint is reloaded and its tail replayed.

    `ready_at` is the database's clock. `in_doubt` names the effects that may happen twice.
    """

    step: ClassVar[RecoveryStep | None] = RecoveryStep.READY_FOR_DISPATCH

    recovery_no: Number
    start: StartPoint
    attempt_no: Number
    kind: str
    priority: Number
    ready_at: Moment
    not_before: Moment | None = None
    tenant: str = ""
    code_version: str = ""
    in_doubt: tuple[InDoubt, ...] = ()


class Dispatched(RecoveryEvent, frozen=True, kw_only=True, tag="dispatched"):
    """Exactly one worker claimed the attempt. `dispatch_id` names the claim that won."""

    recovery_no: Number
    holder: Holder
    fence: Fence
    ttl_s: Seconds
    dispatch_id: str


class WriteKind(StrEnum):
    """The operations that a worker may write under its fence."""

    HEARTBEAT = "heartbeat"
    ANNOUNCEMENT = "announcement"
    RUN_STEP = "run_step"
    CHECKPOINT = "checkpoint"
    COMPLETION = "completion"
    FAILURE = "failure"
    WAIT = "wait"
    HAND_BACK = "hand_back"


class Confirmed(RecoveryEvent, frozen=True, kw_only=True, tag="confirmed"):
    """The holder's first accepted write under this fence, appended in that same transaction."""

    fence: Fence
    write: WriteKind
    ordinal: Number


CODEC_MISSING: Final = "CodecMissing"
"""The error class of a step for which a process lacks a codec: a wait, and no failure."""


class StepFailed(RecoveryEvent, frozen=True, kw_only=True, tag="step-failed"):
    """A step of the pipeline failed; it is retried at `retry_at`.

    In the log `message_digest` stands for the message. `waits_since` is set where the attempt waits
    for a newer program: the time since which it waits.
    """

    recovery_no: Number
    failed_step: RecoveryStep
    error_class: str
    message: str
    try_count: Number
    retry_at: Moment
    waits_since: Moment | None = None
    message_digest: str | None = None


class AbandonReason(StrEnum):
    """Why a recovery stopped without handing the attempt on."""

    RENEWED_LATE = "renewed_late"
    ALREADY_COMPLETED = "already_completed"
    CANCELLED = "cancelled"


class Abandoned(RecoveryEvent, frozen=True, kw_only=True, tag="abandoned"):
    """This recovery stopped: there is nothing to recover, or nothing any more."""

    recovery_no: Number
    why: AbandonReason
    fence: Fence | None = None
    lease: LeaseView | None = None


class QuarantineCause(StrEnum):
    """Why no machine should continue the attempt."""

    TIP_LOST = "tip_lost"
    CORRUPT = "corrupt"
    DIVERGED = "diverged"
    RAISED = "raised"
    CRASH_LOOP = "crash_loop"
    TIMEOUT = "timeout"
    NO_CHECKPOINT = "no_checkpoint"
    TOO_NEW = "too_new"
    TOO_LARGE = "too_large"
    CODE_CHANGED = "code_changed"
    FOREIGN = "foreign"


class LiftOption(StrEnum):
    """The options that a person may have for a quarantined attempt."""

    RETRY = "retry"
    ACCEPT_TIP = "accept_tip"
    PARENT = "parent"
    RESTART = "restart"


class Quarantined(RecoveryEvent, frozen=True, kw_only=True, tag="quarantined"):
    """No machine continues this attempt until a person chooses one of `options`.

    `message` is an error's, where one is the cause; in the log `message_digest` stands for it.
    """

    recovery_no: Number
    cause: QuarantineCause
    explanation: str
    options: tuple[LiftOption, ...]
    ordinal: Number | None = None
    found_digest: str | None = None
    expected_digest: str | None = None
    kind: str = ""
    tenant: str = ""
    message: str = ""
    message_digest: str | None = None


class QuarantineLifted(RecoveryEvent, frozen=True, kw_only=True, tag="quarantine-lifted"):
    """A person chose how to proceed; the pipeline takes the attempt from the reload again."""

    recovery_no: Number
    option: LiftOption
    fence: Fence


class Resumed(RecoveryEvent, frozen=True, kw_only=True, tag="resumed"):
    """An attempt that waited for a person proceeds; the pipeline reloads it first."""

    recovery_no: Number
    fence: Fence
    kind: str = ""
    tenant: str = ""


class StaleWriteRefused(RecoveryEvent, frozen=True, kw_only=True, tag="stale-write-refused"):
    """A fenced-out worker tried to write. Recorded once per fence and operation."""

    write: WriteKind
    fence: Fence


class Ending(StrEnum):
    """How a lease ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting"


class LeaseEnded(RecoveryEvent, frozen=True, kw_only=True, tag="lease-ended"):
    """The attempt ended, or waits for a person. `error_class` and `message` name a failure; in the
    log `message_digest` stands for the message."""

    ending: Ending
    fence: Fence
    result_digest: str | None = None
    error_class: str = ""
    message: str = ""
    message_digest: str | None = None


AnyEvent = (
    LeaseGranted
    | LeaseExpired
    | Seized
    | CheckpointReloaded
    | Replayed
    | ReadyForDispatch
    | Dispatched
    | Confirmed
    | StepFailed
    | Abandoned
    | Quarantined
    | QuarantineLifted
    | Resumed
    | StaleWriteRefused
    | LeaseEnded
)


def tag_of(event: RecoveryEvent | type[RecoveryEvent]) -> str:
    """The tag under which events of this class are stored for ever."""
    config: Any = event.__struct_config__
    return str(config.tag)
