"""One row per recovery, folded from the stream of its attempt.

An attempt that was never lost has no row, unless a person resumed it or it was quarantined:
that is its recovery number 0.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    Quarantined,
    QuarantineLifted,
    ReadyForDispatch,
    Replayed,
    Resumed,
    Seized,
    StepFailed,
)
from recovery_journal.domain.recovery import Stage
from recovery_journal.projections.projection import Index, Projection, Record
from recovery_journal.projections.recovery_context_row import RecoveryContextRow


class RecoveryContexts(Projection[RecoveryContextRow]):
    """Finds recoveries by run, worker, tenant and time."""

    name = "recovery_contexts"
    row_type = RecoveryContextRow
    key_fields = ("attempt_id", "recovery_no")
    indexes = (
        Index("run", ("run_id", "lost_at")),
        Index("worker", ("worker_id", "lost_at")),
        Index("tenant", ("tenant", "lost_at")),
        Index("lost", ("lost_at",)),
    )

    def fold(self, row: RecoveryContextRow | None, record: Record) -> RecoveryContextRow | None:
        """A loss begins a row; the events that follow change it."""
        event, _, recorded_at = record
        if type(event) is LeaseExpired:
            return _lost(event, recorded_at)
        after = _AFTER.get(type(event))
        if after is None:
            return row
        if row is None:
            if not isinstance(event, Quarantined | Resumed):
                return None
            row = _never_lost(event)
        return after(row, event, recorded_at)


def _lost(event: LeaseExpired, recorded_at: datetime) -> RecoveryContextRow:
    lease = event.lease
    return RecoveryContextRow(
        attempt_id=event.originator_id,
        version=event.originator_version,
        recovery_no=event.recovery_no,
        run_id=event.run_id,
        kind=lease.kind,
        tenant=event.tenant,
        stage=Stage.EXPIRED,
        fence=event.fence or lease.fence,
        worker_id=lease.holder.worker_id,
        host=lease.holder.incarnation.host,
        loss=event.loss,
        is_fleet_wide=event.is_fleet_wide,
        lost_epoch=lease.fence.epoch,
        expires_at=lease.expires_at,
        lost_at=recorded_at,
        reported=lease.progress,
    )


def _never_lost(event: Quarantined | Resumed) -> RecoveryContextRow:
    return RecoveryContextRow(
        attempt_id=event.originator_id,
        version=event.originator_version,
        recovery_no=event.recovery_no,
        run_id=event.run_id,
        kind=event.kind,
        tenant=event.tenant,
        stage=Stage.HELD,
    )


def _seized(row: RecoveryContextRow, event: Seized, _at: datetime) -> RecoveryContextRow:
    return replace(row, version=event.originator_version, fence=event.fence)


def _reloaded(
    row: RecoveryContextRow, event: CheckpointReloaded, at: datetime
) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.RELOADED,
        checkpoint=event.ref,
        checkpoint_ordinal=event.ordinal,
        checkpoint_digest=event.digest,
        standing=event.standing,
        to_ordinal=event.to_ordinal,
        in_doubt=event.in_doubt,
        reloaded_at=at,
        retry_at=None,
    )


def _replayed(row: RecoveryContextRow, event: Replayed, at: datetime) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.REPLAYED,
        replay_mode=event.mode,
        digest=event.digest,
        expected_digest=event.expected_digest,
        is_verified=event.digest == event.expected_digest,
        replayed_at=at,
        retry_at=None,
    )


def _ready(row: RecoveryContextRow, event: ReadyForDispatch, at: datetime) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.READY,
        kind=event.kind,
        tenant=event.tenant,
        ready_at=event.ready_at,
        made_ready_at=at,
        in_doubt=event.in_doubt,
        retry_at=None,
    )


def _dispatched(row: RecoveryContextRow, event: Dispatched, at: datetime) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.HELD,
        fence=event.fence,
        dispatched_to=event.holder.worker_id,
        dispatched_epoch=event.fence.epoch,
        dispatched_at=at,
        confirmed_at=None,
        ended=None,
        ended_at=None,
    )


def _confirmed(row: RecoveryContextRow, event: Confirmed, at: datetime) -> RecoveryContextRow:
    return replace(row, version=event.originator_version, confirmed_at=at)


def _step_failed(row: RecoveryContextRow, event: StepFailed, _at: datetime) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        failed_step_count=row.failed_step_count + 1,
        last_error=f"{event.failed_step}: {event.error_class}",
        retry_at=event.retry_at,
    )


def _abandoned(row: RecoveryContextRow, event: Abandoned, at: datetime) -> RecoveryContextRow:
    is_held = event.why is AbandonReason.RENEWED_LATE
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.HELD if is_held else Stage.ENDED,
        fence=event.fence or row.fence if is_held else row.fence,
        ended=event.why.value,
        ended_at=at,
        retry_at=None,
    )


def _quarantined(row: RecoveryContextRow, event: Quarantined, at: datetime) -> RecoveryContextRow:
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.QUARANTINED,
        quarantine_cause=event.cause,
        quarantine_explanation=event.explanation,
        quarantined_at=at,
        retry_at=None,
    )


def _reopened(
    row: RecoveryContextRow, event: QuarantineLifted | Resumed, _at: datetime
) -> RecoveryContextRow:
    """The pipeline takes the recovery from the reload again: its earlier findings are void."""
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.EXPIRED,
        fence=event.fence,
        lifted=event.option if isinstance(event, QuarantineLifted) else None,
        **_VOID,
    )


_VOID: dict[str, Any] = {
    "checkpoint": None,
    "checkpoint_ordinal": None,
    "checkpoint_digest": None,
    "standing": None,
    "to_ordinal": None,
    "reloaded_at": None,
    "replay_mode": None,
    "digest": None,
    "expected_digest": None,
    "is_verified": False,
    "replayed_at": None,
    "ready_at": None,
    "made_ready_at": None,
    "in_doubt": (),
    "retry_at": None,
    "ended": None,
    "ended_at": None,
}


def _ended(row: RecoveryContextRow, event: LeaseEnded, at: datetime) -> RecoveryContextRow:
    is_waiting = event.ending is Ending.WAITING
    return replace(
        row,
        version=event.originator_version,
        stage=Stage.WAITING if is_waiting else Stage.ENDED,
        fence=event.fence,
        ended=event.ending.value,
        ended_at=at,
        retry_at=None,
    )


# Written out, each with its own `replace`: a rebuild spends much of its time here, and changes that
# are first gathered in a dictionary cost it twice as much.
_AFTER: dict[type[Struct], Callable[[RecoveryContextRow, Any, datetime], RecoveryContextRow]] = {
    Seized: _seized,
    CheckpointReloaded: _reloaded,
    Replayed: _replayed,
    ReadyForDispatch: _ready,
    Dispatched: _dispatched,
    Confirmed: _confirmed,
    StepFailed: _step_failed,
    Abandoned: _abandoned,
    Quarantined: _quarantined,
    QuarantineLifted: _reopened,
    Resumed: _reopened,
    LeaseEnded: _ended,
}

RECOVERY_CONTEXTS = RecoveryContexts()
