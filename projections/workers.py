"""One row per worker: what it was given, what it finished and what was taken from it."""

from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    StaleWriteRefused,
)
from recovery_journal.domain.lease import Holder
from recovery_journal.projections.projection import PositionRow, Projection, Record

WORKER_ROLE = "worker"
"""The role under which a worker records its own acts; its id is the actor's name."""


class WorkerRow(PositionRow, frozen=True, kw_only=True):
    """Counts over everything that the log says of one worker id.

    `lost_count` is the sum of `losses`, counts by reason; `fleet_wide_count` of them were lost
    together with most of the fleet, and of `renewed_late_count` the worker was alive after all.
    """

    worker_id: str
    granted_count: int = 0
    dispatched_count: int = 0
    confirmed_count: int = 0
    completed_count: int = 0
    failed_count: int = 0
    refused_write_count: int = 0
    last_refused_at: datetime | None = None
    lost_count: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    fleet_wide_count: int = 0
    renewed_late_count: int = 0
    last_lost_at: datetime | None = None
    last_seen_at: datetime | None = None
    host: str | None = None
    incarnation: str | None = None


class Workers(Projection[WorkerRow]):
    """Mixes streams, so only the follower writes it."""

    name = "workers"
    row_type = WorkerRow
    key_fields = ("worker_id",)

    def key(self, event: AnyEvent) -> str | None:
        """The worker that the event is about, if it is about one."""
        match event:
            case LeaseGranted() | Dispatched():
                return event.holder.worker_id
            case LeaseExpired():
                return event.lease.holder.worker_id
            case Abandoned(why=AbandonReason.RENEWED_LATE, lease=lease) if lease is not None:
                return lease.holder.worker_id
            case Confirmed() | LeaseEnded() | StaleWriteRefused():
                # These name no holder: a worker records them itself.
                return event.recorded_by.name if event.recorded_by.role == WORKER_ROLE else None
            case _:
                return None

    def fold(self, row: WorkerRow | None, record: Record) -> WorkerRow | None:
        """Count the event."""
        event, position, recorded_at = record
        if row is None:
            key = self.key(event)
            assert key is not None
            row = WorkerRow(worker_id=key, position=position)
        row = replace(row, position=position)
        match event:
            case LeaseGranted():
                row = replace(row, granted_count=row.granted_count + 1)
                return _seen(row, event.holder, recorded_at)
            case Dispatched():
                row = replace(row, dispatched_count=row.dispatched_count + 1)
                return _seen(row, event.holder, recorded_at)
            case Confirmed():
                return replace(row, confirmed_count=row.confirmed_count + 1)
            case LeaseEnded(ending=Ending.COMPLETED):
                return replace(row, completed_count=row.completed_count + 1)
            case LeaseEnded(ending=Ending.FAILED):
                return replace(row, failed_count=row.failed_count + 1)
            case StaleWriteRefused():
                count = row.refused_write_count + 1
                return replace(row, refused_write_count=count, last_refused_at=recorded_at)
            case Abandoned():
                return replace(row, renewed_late_count=row.renewed_late_count + 1)
            case LeaseExpired():
                return _lost(row, event, recorded_at)
            case _:
                return row


def _seen(row: WorkerRow, holder: Holder, at: datetime) -> WorkerRow:
    life = holder.incarnation
    return replace(row, host=life.host, incarnation=life.token, last_seen_at=at)


def _lost(row: WorkerRow, event: LeaseExpired, at: datetime) -> WorkerRow:
    losses = {**row.losses, event.loss.value: row.losses.get(event.loss.value, 0) + 1}
    return replace(
        row,
        lost_count=row.lost_count + 1,
        losses=dict(sorted(losses.items())),
        fleet_wide_count=row.fleet_wide_count + event.is_fleet_wide,
        last_lost_at=at,
    )


WORKERS = Workers()
