"""Crash recovery with proof: leases, checkpoints and an append-only log of every recovery.
Begin with `open`; the README has a short example.
"""

from recovery_journal import errors, events
from recovery_journal.claiming.loading import Claim
from recovery_journal.cli.app import App
from recovery_journal.domain.error_texts import ErrorTexts
from recovery_journal.domain.errors import (
    AttemptExists,
    CheckpointTooLarge,
    CheckpointTooNew,
    CodecFailed,
    CodecMissing,
    HookFailed,
    InvalidInput,
    LeaseLost,
    RecoveryJournalError,
    ReducerFailed,
    Refused,
    ResultPruned,
    Retry,
    RunBusy,
    RunMismatch,
    RunPruned,
    Stop,
    StreamOccupied,
    UnknownAttempt,
    WrongStage,
)
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.pipeline import CrashRecoveryPipeline, RecoveryContext, RecoveryStep
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Recovery, Stage
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.monitoring.history import HistoryEntry
from recovery_journal.monitoring.quarantine_notifier import QuarantineCommand
from recovery_journal.monitoring.quarantined import QuarantinedAttempt
from recovery_journal.monitoring.status import Status
from recovery_journal.opening import open  # noqa: A004 - `recovery_journal.open` reads well
from recovery_journal.postgres.server_settings import DurabilityWeakened
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.process.identity import incarnation
from recovery_journal.projections.dispatch_ready import DispatchReadyRow
from recovery_journal.projections.projection import (
    Index,
    Listing,
    PositionRow,
    Projection,
    Record,
    StreamRow,
)
from recovery_journal.projections.recovery_context_row import RecoveryContextRow
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.following.outdated import OutdatedProjection, ProjectionOutdated
from recovery_journal.read_models.rebuild.check import CheckedProjection
from recovery_journal.read_models.rebuild.progress import RebuildProgress, RebuildReport
from recovery_journal.recovery.sweep_result import StepTaken, SweepResult
from recovery_journal.restore.restore import Restored
from recovery_journal.restore.skipping import Skipped
from recovery_journal.store.lease import Lease, LeaseTerms
from recovery_journal.store.pruning import Pruned
from recovery_journal.sweeper import Sweeper
from recovery_journal.values.codec import Codec
from recovery_journal.worker.outcome import Notice, NoticeKind, Outcome
from recovery_journal.worker.worker import Worker

__all__ = [
    "App",
    "AttemptExists",
    "CheckedProjection",
    "CheckpointTooLarge",
    "CheckpointTooNew",
    "Claim",
    "Codec",
    "CodecFailed",
    "CodecMissing",
    "CrashRecoveryPipeline",
    "DispatchReadyRow",
    "Durability",
    "DurabilityWeakened",
    "ErrorTexts",
    "Follower",
    "HistoryEntry",
    "HookFailed",
    "Index",
    "InvalidInput",
    "Journal",
    "Lease",
    "LeaseLost",
    "LeaseTerms",
    "LiftOption",
    "Limits",
    "Listing",
    "LossReason",
    "Notice",
    "NoticeKind",
    "Outcome",
    "OutdatedProjection",
    "Policy",
    "PositionRow",
    "Projection",
    "ProjectionOutdated",
    "Pruned",
    "QuarantineCommand",
    "QuarantinedAttempt",
    "RebuildProgress",
    "RebuildReport",
    "Record",
    "Recovery",
    "RecoveryContext",
    "RecoveryContextRow",
    "RecoveryJournalError",
    "RecoveryStep",
    "ReducerFailed",
    "Refused",
    "Restored",
    "ResultPruned",
    "Retry",
    "RunBusy",
    "RunMismatch",
    "RunPruned",
    "Skipped",
    "Stage",
    "Status",
    "StepTaken",
    "Stop",
    "StreamOccupied",
    "StreamRow",
    "SweepResult",
    "Sweeper",
    "UnknownAttempt",
    "Worker",
    "WrongStage",
    "errors",
    "events",
    "incarnation",
    "open",
]
