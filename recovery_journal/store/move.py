"""How an attempt's next events change its lease row, and the pending notices of quarantines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    LeaseEnded,
    QuarantineCause,
    Quarantined,
    QuarantineLifted,
    RecoveryEvent,
    Replayed,
    StaleWriteRefused,
    StepFailed,
)
from recovery_journal.domain.lease import Holder, LeaseStatus
from recovery_journal.domain.recovery import RECOVERING, Recovery, Stage
from recovery_journal.postgres.arrays import array
from recovery_journal.process.identity import sweeper_holder

MOVED: Final = {
    "attempt_id": "text",
    "version": "bigint",
    "is_confirmed": "boolean",
    "status": "text",
    "epoch": "bigint",
    "lease_id": "text",
    "worker_id": "text",
    "host": "text",
    "boot_id": "text",
    "pid": "bigint",
    "process_started": "text",
    "recovery_no": "integer",
    "dispatch_id": "text",
    "lasts_s": "double precision",
    "ttl_s": "double precision",
    "retry_at": "timestamptz",
    "is_deadline_waived": "boolean",
    "has_ended": "boolean",
    "code_version": "text",
}
"""The columns that a move sets in its lease row: names and types, in the order of `_row`."""

NOTED: Final = {"attempt_id": "text", "version": "bigint", "is_confirmed": "boolean"}
"""The columns that a note sets."""


def _given(columns: Mapping[str, str]) -> str:
    """Rows that are given as one array for each column."""
    arrays = ", ".join(f"%({name})s::{kind}[]" for name, kind in columns.items())
    return f"unnest({arrays}) AS given({', '.join(columns)})"


# With a null in `lasts_s` nothing can expire. When the fence changes, the lease counts as newly
# granted, and its holder has to declare its session lock again.
MOVE: Final = f"""
UPDATE leases
SET status = given.status,
    version = given.version,
    granted_at = CASE WHEN leases.epoch = given.epoch THEN granted_at ELSE clock_timestamp() END,
    renewed_at = clock_timestamp(),
    epoch = given.epoch,
    lease_id = given.lease_id,
    worker_id = given.worker_id,
    host = given.host,
    boot_id = given.boot_id,
    pid = given.pid,
    process_started = given.process_started,
    session_lock = CASE WHEN leases.epoch = given.epoch THEN session_lock END,
    recovery_no = given.recovery_no,
    dispatch_id = given.dispatch_id,
    code_version = given.code_version,
    is_confirmed = given.is_confirmed,
    expires_at = coalesce(
        given.retry_at,
        clock_timestamp() + make_interval(secs => given.lasts_s)
    ),
    retry_at = given.retry_at,
    ttl_s = coalesce(given.ttl_s, leases.ttl_s),
    deadline_at = CASE WHEN given.is_deadline_waived THEN NULL ELSE deadline_at END,
    ended_at = CASE WHEN given.has_ended THEN clock_timestamp() END,
    loss = NULL,
    loss_reason = NULL
FROM {_given(MOVED)}
WHERE leases.attempt_id = given.attempt_id
"""

# They renew no lease.
NOTE: Final = f"""
UPDATE leases
SET version = given.version,
    is_confirmed = given.is_confirmed
FROM {_given(NOTED)}
WHERE leases.attempt_id = given.attempt_id
"""

STATUS_OF_STAGE = {
    Stage.HELD: LeaseStatus.HELD,
    Stage.EXPIRED: LeaseStatus.RECOVERING,
    Stage.RELOADED: LeaseStatus.RECOVERING,
    Stage.REPLAYED: LeaseStatus.RECOVERING,
    Stage.READY: LeaseStatus.READY,
    Stage.QUARANTINED: LeaseStatus.QUARANTINED,
    Stage.WAITING: LeaseStatus.WAITING,
}


INSERT_NOTICES = """
INSERT INTO pending_quarantine_notices (attempt_id, version)
SELECT *
FROM unnest(%(attempt_ids)s::text[], %(versions)s::bigint[])
"""

DELETE_NOTICES = """
DELETE FROM pending_quarantine_notices
WHERE attempt_id = ANY(%(attempt_ids)s::text[])
"""

NOTES = frozenset({Confirmed, StaleWriteRefused})
"""Events that concern a lease without moving it."""

STEPS = frozenset({CheckpointReloaded, Replayed})
"""Events that only advance a recovery. Their rows stay unchanged: what a row says of the attempt
stays true."""


class Move(Struct, frozen=True, gc=False):
    """One attempt's next events, decided on `recovery`; at least one."""

    recovery: Recovery
    events: tuple[AnyEvent, ...]

    @property
    def kinds(self) -> set[type[RecoveryEvent]]:
        """The kinds of its events."""
        return set(map(type, self.events))


def change_rows(
    cursor: Cursor[DictRow], moved: Sequence[tuple[Move, Recovery]], *, sweeper_ttl_s: float
) -> None:
    """Set the lease rows to what these attempts are after their moves. An attempt that is
    recovering then belongs to this process's sweeper for `sweeper_ttl_s`, without renewal."""
    notes: list[Recovery] = []
    moves: list[tuple[Move, Recovery]] = []
    for move, after in moved:
        if move.kinds <= NOTES:
            notes.append(after)
        elif not move.kinds <= STEPS:
            moves.append((move, after))
    if notes:
        noted = [(after.attempt_id, after.version, after.is_confirmed) for after in notes]
        cursor.execute(NOTE, _columns(NOTED, noted))
    if moves:
        sweeper = sweeper_holder()
        rows = [_row(move, after, sweeper, sweeper_ttl_s) for move, after in moves]
        cursor.execute(MOVE, _columns(MOVED, rows))
        _note_quarantines(cursor, [move for move, _ in moves])


def _note_quarantines(cursor: Cursor[DictRow], moves: Sequence[Move]) -> None:
    """Add a notice for each attempt that these moves quarantine; delete those of attempts that
    leave quarantine."""
    entering = [event for move in moves for event in move.events if isinstance(event, Quarantined)]
    leaving = [it.recovery.attempt_id for it in moves if it.recovery.stage is Stage.QUARANTINED]
    if leaving:
        cursor.execute(DELETE_NOTICES, {"attempt_ids": leaving})
    if entering:
        noted = {
            "attempt_ids": [event.originator_id for event in entering],
            "versions": [event.originator_version for event in entering],
        }
        cursor.execute(INSERT_NOTICES, noted)


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


def _row(move: Move, after: Recovery, sweeper: Holder, sweeper_ttl_s: float) -> tuple[Any, ...]:
    """The values of `MOVED`."""
    last = move.events[-1]
    granted_s = last.ttl_s if isinstance(last, Dispatched) else None
    is_recovering = after.stage in RECOVERING
    holder = sweeper if is_recovering else after.holder
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
        sweeper_ttl_s if is_recovering else granted_s,
        granted_s,
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


def _columns(names: Iterable[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, str]:
    """The rows as one array per column."""
    return {name: array(column) for name, column in zip(names, zip(*rows), strict=True)}
