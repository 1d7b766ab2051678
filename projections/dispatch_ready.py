"""The dispatch-ready list: recovered attempts that wait for a worker, and those that did.

In dispatch order: the highest priority first, then the longest ready, then by attempt id. Rows stay
after their entries leave: the positions at which an entry entered and left determine what was on
the list at any position.
"""

from datetime import datetime
from enum import StrEnum

from msgspec.structs import replace

from recovery_journal.domain.checkpoint import InDoubt
from recovery_journal.domain.events import (
    Abandoned,
    Dispatched,
    LeaseEnded,
    Quarantined,
    ReadyForDispatch,
    RecoveryEvent,
    StartPoint,
)
from recovery_journal.projections.projection import Listing, Projection, Record, StreamRow


class LeftBecause(StrEnum):
    """Why an entry left the list."""

    DISPATCHED = "dispatched"
    ABANDONED = "abandoned"
    QUARANTINED = "quarantined"
    ENDED = "ended"


class DispatchReadyRow(StreamRow, frozen=True, kw_only=True):
    """One entry. It is on the list from `entered_position` until before `left_position`.

    An attempt enters again, as a new row, with every recovery: `entered_version` distinguishes its
    entries. Readers have to respect `not_before`.
    """

    entered_version: int
    run_id: str
    recovery_no: int
    attempt_no: int
    kind: str
    tenant: str
    priority: int
    ready_at: datetime
    not_before: datetime | None
    code_version: str
    start: StartPoint
    in_doubt: tuple[InDoubt, ...]
    entered_position: int
    left_position: int | None = None
    left_at: datetime | None = None
    left_because: LeftBecause | None = None

    @property
    def is_active(self) -> bool:
        """Whether the attempt still waits for a worker."""
        return self.left_position is None


LEAVING: dict[type[RecoveryEvent], LeftBecause] = {
    Dispatched: LeftBecause.DISPATCHED,
    Abandoned: LeftBecause.ABANDONED,
    Quarantined: LeftBecause.QUARANTINED,
    LeaseEnded: LeftBecause.ENDED,
}

LIST_EVENTS: tuple[type[RecoveryEvent], ...] = (ReadyForDispatch, *LEAVING)
"""The only events that can change the list."""


class DispatchReady(Projection[DispatchReadyRow]):
    """Written inline, because a claim needs it at once."""

    name = "dispatch_ready"
    row_type = DispatchReadyRow
    key_fields = ("attempt_id", "entered_version")
    events = LIST_EVENTS
    listing = Listing(("priority", "ready_at", "attempt_id"), descending=("priority",))
    is_inline = True

    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        """An attempt made ready enters; any event that takes it elsewhere makes it leave."""
        event, position, recorded_at = record
        if isinstance(event, ReadyForDispatch):
            return _entered(event, position)
        left_because = LEAVING.get(type(event))
        if row is None or left_because is None or not row.is_active:
            return row
        return replace(
            row,
            version=event.originator_version,
            left_position=position,
            left_at=recorded_at,
            left_because=left_because,
        )


def _entered(event: ReadyForDispatch, position: int) -> DispatchReadyRow:
    return DispatchReadyRow(
        attempt_id=event.originator_id,
        version=event.originator_version,
        entered_version=event.originator_version,
        run_id=event.run_id,
        recovery_no=event.recovery_no,
        attempt_no=event.attempt_no,
        kind=event.kind,
        tenant=event.tenant,
        priority=event.priority,
        ready_at=event.ready_at,
        not_before=event.not_before,
        code_version=event.code_version,
        start=event.start,
        in_doubt=event.in_doubt,
        entered_position=position,
    )


DISPATCH_READY = DispatchReady()
