"""How an attempt's next events change its lease row."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    Confirmed,
    Dispatched,
    LeaseEnded,
    QuarantineCause,
    QuarantineLifted,
    StaleWriteRefused,
    StepFailed,
)
from recovery_journal.domain.lease import Holder, LeaseStatus
from recovery_journal.domain.recovery import RECOVERING, Recovery, Stage
from recovery_journal.postgres.arrays import array

# With a null in `lasts_s` nothing can expire. When the fence changes, the lease counts as newly
# granted, and its holder has to declare its session lock again.
MOVE = """
UPDATE leases
SET status = moved.status,
    version = moved.version,
    granted_at = CASE WHEN leases.epoch = moved.epoch THEN granted_at ELSE clock_timestamp() END,
    renewed_at = clock_timestamp(),
    epoch = moved.epoch,
    lease_id = moved.lease_id,
    worker_id = moved.worker_id,
    host = moved.host,
    boot_id = moved.boot_id,
    pid = moved.pid,
    process_started = moved.process_started,
    session_lock = CASE WHEN leases.epoch = moved.epoch THEN session_lock END,
    recovery_no = moved.recovery_no,
    dispatch_id = moved.dispatch_id,
    code_version = moved.code_version,
    is_confirmed = moved.is_confirmed,
    expires_at = coalesce(
        moved.retry_at,
        clock_timestamp() + make_interval(secs => moved.lasts_s)
    ),
    retry_at = moved.retry_at,
    ttl_s = coalesce(moved.ttl_s, leases.ttl_s),
    deadline_at = CASE WHEN moved.is_deadline_waived THEN NULL ELSE deadline_at END,
    ended_at = CASE WHEN moved.has_ended THEN clock_timestamp() END,
    loss = NULL,
    loss_reason = NULL
FROM unnest(
    %(attempt_id)s::text[], %(status)s::text[], %(version)s::bigint[], %(epoch)s::bigint[],
    %(lease_id)s::text[], %(worker_id)s::text[], %(host)s::text[], %(boot_id)s::text[],
    %(pid)s::bigint[], %(process_started)s::text[], %(recovery_no)s::integer[],
    %(dispatch_id)s::text[], %(is_confirmed)s::boolean[], %(lasts_s)s::double precision[],
    %(ttl_s)s::double precision[], %(retry_at)s::timestamptz[],
    %(is_deadline_waived)s::boolean[], %(has_ended)s::boolean[], %(code_version)s::text[]
) AS moved(
    attempt_id, status, version, epoch, lease_id, worker_id, host, boot_id, pid, process_started,
    recovery_no, dispatch_id, is_confirmed, lasts_s, ttl_s, retry_at, is_deadline_waived, has_ended,
    code_version
)
WHERE leases.attempt_id = moved.attempt_id
"""

# For events that concern a lease without moving it: they renew no lease.
NOTE_EVENTS = """
UPDATE leases
SET version = noted.version,
    is_confirmed = noted.is_confirmed
FROM unnest(%(attempt_id)s::text[], %(version)s::bigint[], %(is_confirmed)s::boolean[])
    AS noted(attempt_id, version, is_confirmed)
WHERE leases.attempt_id = noted.attempt_id
"""

NOTED = ("attempt_id", "version", "is_confirmed")
MOVED = (
    *("attempt_id", "version", "is_confirmed", "status", "epoch", "lease_id"),
    *("worker_id", "host", "boot_id", "pid", "process_started"),
    *("recovery_no", "dispatch_id", "lasts_s", "ttl_s", "retry_at"),
    *("is_deadline_waived", "has_ended", "code_version"),
)

STATUS_OF_STAGE = {
    Stage.HELD: LeaseStatus.HELD,
    Stage.EXPIRED: LeaseStatus.RECOVERING,
    Stage.RELOADED: LeaseStatus.RECOVERING,
    Stage.REPLAYED: LeaseStatus.RECOVERING,
    Stage.READY: LeaseStatus.READY,
    Stage.QUARANTINED: LeaseStatus.QUARANTINED,
    Stage.WAITING: LeaseStatus.WAITING,
}


class Move(Struct, frozen=True, gc=False):
    """One attempt's next events, decided on `recovery`.

    While the attempt is recovering, `owner` is the sweeper that drives it. `lasts_s` is how long,
    in seconds, the lease then holds without renewal.
    """

    recovery: Recovery
    events: tuple[AnyEvent, ...]
    owner: Holder
    lasts_s: float


def change_rows(cursor: Cursor[DictRow], moved: Iterable[tuple[Move, Recovery]]) -> None:
    """Set the lease rows to what these attempts are after their moves."""
    notes: list[tuple[Move, Recovery]] = []
    moves: list[tuple[Move, Recovery]] = []
    for move, after in moved:
        is_note = all(isinstance(event, Confirmed | StaleWriteRefused) for event in move.events)
        (notes if is_note else moves).append((move, after))
    if notes:
        cursor.execute(NOTE_EVENTS, _columns(NOTED, [_note(after) for _, after in notes]))
    if moves:
        cursor.execute(MOVE, _columns(MOVED, [_row(move, after) for move, after in moves]))


def status_of(recovery: Recovery) -> LeaseStatus:
    """The lease status of an attempt at this point of its stream."""
    match recovery.ended:
        case LeaseEnded(ending=ending) if recovery.stage is Stage.ENDED:
            return LeaseStatus(ending.value)
        case Abandoned(why=AbandonReason.CANCELLED):
            return LeaseStatus.CANCELLED
        case Abandoned():
            return LeaseStatus.COMPLETED
        case _:
            return STATUS_OF_STAGE[recovery.stage]


def _note(after: Recovery) -> tuple[Any, ...]:
    """The values of `NOTED`."""
    return after.attempt_id, after.version, after.is_confirmed


def _row(move: Move, after: Recovery) -> tuple[Any, ...]:
    """The values of `MOVED`."""
    last = move.events[-1]
    is_recovering = after.stage in RECOVERING
    holder = move.owner if is_recovering else after.holder
    life = holder.incarnation
    return (
        after.attempt_id,
        after.version,
        after.is_confirmed,
        status_of(after).value,
        after.fence.epoch,
        after.fence.lease_id,
        holder.worker_id,
        life.host,
        life.boot_id,
        life.pid,
        life.started,
        after.recovery_no,
        after.dispatch_id,
        move.lasts_s if is_recovering or after.stage is Stage.HELD else None,
        last.ttl_s if isinstance(last, Dispatched) else None,
        last.retry_at if isinstance(last, StepFailed) else None,
        _is_deadline_waived(move),
        after.stage is Stage.ENDED,
        after.code_version,
    )


def _is_deadline_waived(move: Move) -> bool:
    """Whether a person let an attempt proceed that had reached its execution timeout."""
    quarantined = move.recovery.quarantined
    return (
        isinstance(move.events[-1], QuarantineLifted)
        and quarantined is not None
        and quarantined.cause is QuarantineCause.TIMEOUT
    )


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, str]:
    """The rows as one array per column."""
    return {name: array(column) for name, column in zip(names, zip(*rows), strict=True)}
