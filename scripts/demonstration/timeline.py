"""The story of each recovery of an attempt, as the journal tells it."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

import recovery_journal as rj


class Recovered(Struct, frozen=True, kw_only=True):
    """One recovery. Phases are the seconds between what the database recorded, None where the
    next step was never taken."""

    recovery_no: int
    worker_id: str
    loss: str
    reason: str
    lost_epoch: int
    lost_at: datetime
    silent_s: float
    checkpoint_ordinal: int
    to_ordinal: int
    is_verified: bool
    in_doubt: tuple[str, ...]
    taken_over_by: str
    reloaded_s: float | None
    replayed_s: float | None
    made_ready_s: float | None
    claimed_s: float | None
    working_s: float | None


def recoveries(journal: rj.Journal, attempt_id: str) -> tuple[Recovered, ...]:
    """The attempt's recoveries, the first loss first."""
    log = events(journal, attempt_id)
    losses = {event["recovery_no"]: event for event in log if event["type"] == "lease-expired"}
    told = []
    for row in journal.contexts(attempt_id=attempt_id):
        loss = losses[row.recovery_no]
        lost_at, lease = loss["recorded_at"], loss["lease"]
        told.append(
            Recovered(
                recovery_no=row.recovery_no,
                worker_id=row.worker_id or "",
                loss=loss["loss"],
                reason=loss["reason"],
                lost_epoch=lease["fence"]["epoch"],
                lost_at=lost_at,
                silent_s=(lost_at - lease["renewed_at"]).total_seconds(),
                checkpoint_ordinal=row.checkpoint_ordinal or 0,
                to_ordinal=row.to_ordinal or 0,
                is_verified=row.is_verified,
                in_doubt=tuple(effect.key for effect in row.in_doubt),
                taken_over_by=row.dispatched_to or "",
                reloaded_s=_between(row.lost_at, row.reloaded_at),
                replayed_s=_between(row.reloaded_at, row.replayed_at),
                made_ready_s=_between(row.replayed_at, row.made_ready_at),
                claimed_s=_between(row.made_ready_at, row.dispatched_at),
                working_s=_between(row.dispatched_at, row.confirmed_at),
            )
        )
    return tuple(sorted(told, key=lambda one: one.recovery_no))


def events(journal: rj.Journal, attempt_id: str) -> list[dict[str, Any]]:
    """The attempt's events as plain data, each with its position and time."""
    return [
        {
            **msgspec.to_builtins(entry.event, builtin_types=(datetime,)),
            "position": entry.position,
            "recorded_at": entry.recorded_at,
        }
        for entry in journal.history(attempt_id)
    ]


def _between(one: datetime | None, other: datetime | None) -> float | None:
    return (other - one).total_seconds() if one and other else None
