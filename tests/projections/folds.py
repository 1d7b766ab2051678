"""Folds of the dispatch-ready list as other versions of the program may have them."""

from datetime import datetime
from typing import Any

from msgspec.structs import asdict, replace

from recovery_journal.domain.events import LeaseGranted, ReadyForDispatch
from recovery_journal.projections.dispatch_ready import DispatchReady, DispatchReadyRow
from recovery_journal.projections.projection import Projection, Record, StreamRow


class Shouting(DispatchReady):
    """Another meaning, the same columns."""

    version = 2

    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        after = super().fold(row, record)
        return row if after is row or after is None else replace(after, kind=after.kind.upper())


class WiderRow(DispatchReadyRow, frozen=True, kw_only=True):
    length: int


class Wider(DispatchReady):
    """A column more, which older programs do not fill."""

    version = 2
    row_type = WiderRow  # type: ignore[assignment]  # its rows are entries all the same

    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        after = super().fold(row, record)
        if after is None or isinstance(after, WiderRow):
            return after
        return WiderRow(**asdict(after), length=len(after.attempt_id))


class BareRow(StreamRow, frozen=True, kw_only=True):
    entered_version: int


class Bare(Projection[BareRow]):
    """The same keys, and hardly another column."""

    name = "dispatch_ready"
    version = 2
    row_type = BareRow
    key_fields = ("attempt_id", "entered_version")
    events = (ReadyForDispatch,)
    is_inline = True

    def fold(self, _row: BareRow | None, record: Record) -> BareRow | None:
        version = record.event.originator_version
        return BareRow(
            attempt_id=record.event.originator_id, version=version, entered_version=version
        )


class NarrowerRow(StreamRow, frozen=True, kw_only=True):
    ready_at: datetime


class Narrower(Projection[Any]):
    """Most columns gone, and one row for an attempt."""

    name = "dispatch_ready"
    version = 2
    row_type = NarrowerRow
    key_fields = ("attempt_id",)
    events = (LeaseGranted, ReadyForDispatch)
    is_inline = True

    def fold(self, row: NarrowerRow | None, record: Record) -> NarrowerRow | None:
        event = record.event
        if not isinstance(event, ReadyForDispatch):
            return row
        return NarrowerRow(
            attempt_id=event.originator_id,
            version=event.originator_version,
            ready_at=event.ready_at,
        )
