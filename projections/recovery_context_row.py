"""The row of one recovery: what was lost, from where it was replayed, and its result."""

from datetime import datetime

from recovery_journal.domain.checkpoint import CheckpointRef, InDoubt
from recovery_journal.domain.events import LiftOption, QuarantineCause, TipStanding
from recovery_journal.domain.lease import Fence, LossReason, Progress
from recovery_journal.domain.pipeline import RecoveryContext
from recovery_journal.domain.recovery import Stage
from recovery_journal.domain.replay import ReplayMode
from recovery_journal.projections.projection import StreamRow


class RecoveryContextRow(StreamRow, frozen=True, kw_only=True):
    """One recovery. Every `…_at` but `expires_at`, `ready_at` and `retry_at` is the time at which
    the database recorded the step, so that differences are the lengths of phases.

    `worker_id` lost the lease, `dispatched_to` took over. `ended` is how the attempt, or this
    recovery of it, ended; if the attempt is lost again, the row stays as it was then. `fence` is
    not known of an attempt that was quarantined without having been lost, until it is lifted.
    """

    recovery_no: int
    run_id: str
    kind: str
    tenant: str
    stage: Stage
    fence: Fence | None = None

    worker_id: str | None = None
    host: str | None = None
    loss: LossReason | None = None
    is_fleet_wide: bool = False
    lost_epoch: int | None = None
    expires_at: datetime | None = None
    lost_at: datetime | None = None
    reported: Progress | None = None

    checkpoint: CheckpointRef | None = None
    checkpoint_ordinal: int | None = None
    checkpoint_digest: str | None = None
    standing: TipStanding | None = None
    to_ordinal: int | None = None
    reloaded_at: datetime | None = None

    replay_mode: ReplayMode | None = None
    digest: str | None = None
    expected_digest: str | None = None
    is_verified: bool = False
    replayed_at: datetime | None = None

    ready_at: datetime | None = None
    made_ready_at: datetime | None = None
    in_doubt: tuple[InDoubt, ...] = ()

    dispatched_to: str | None = None
    dispatched_epoch: int | None = None
    dispatched_at: datetime | None = None
    confirmed_at: datetime | None = None

    failed_step_count: int = 0
    last_error: str | None = None
    retry_at: datetime | None = None
    quarantine_cause: QuarantineCause | None = None
    quarantine_explanation: str | None = None
    quarantined_at: datetime | None = None
    lifted: LiftOption | None = None
    ended: str | None = None
    ended_at: datetime | None = None

    @property
    def checkpoint_no(self) -> int:
        """The number of the saved state that was reloaded; 0 for the run's input."""
        return self.checkpoint.checkpoint_no if self.checkpoint else 0

    @property
    def expected(self) -> Progress | None:
        """The progress that the replay is compared with, unless a person waived it."""
        has_waived = self.lifted in (LiftOption.ACCEPT_TIP, LiftOption.RESTART)
        return None if has_waived else self.reported

    def context(self) -> RecoveryContext | None:
        """The context of this recovery's replay; None before the reload."""
        if self.checkpoint_ordinal is None or self.to_ordinal is None:
            return None
        return RecoveryContext(
            attempt_id=self.attempt_id,
            run_id=self.run_id,
            kind=self.kind,
            recovery_no=self.recovery_no,
            checkpoint=self.checkpoint,
            from_ordinal=self.checkpoint_ordinal + 1,
            to_ordinal=self.to_ordinal,
            expected=self.expected,
            fence=self.fence,
        )
