"""How far the log had grown at which time, every thousand positions.

The database's clock may be set back and transactions overtake each other, so `recorded_at` does not
grow with the position. The latest of all times up to a position does; "as of time T" means the last
position before that passes T. These rows find it without reading the whole log.
"""

from datetime import datetime
from typing import Final

from recovery_journal.domain.events import AnyEvent
from recovery_journal.projections.projection import Index, PositionRow, Projection, Record

BLOCK_POSITIONS: Final = 1_000

LOG: Final = "log"
"""The only key: the rows follow each other as the blocks of the log do."""


class MomentRow(PositionRow, frozen=True, kw_only=True):
    """No event at or below `position`, the last in its block so far, was recorded after
    `latest_at`, and one was at that time."""

    log: str
    block_no: int
    latest_at: datetime


class Moments(Projection[MomentRow]):
    """Mixes streams, so only the follower writes it. Without a follower times can still be found,
    by reading the log."""

    name = "moments"
    row_type = MomentRow
    key_fields = ("log", "block_no")
    indexes = (Index("latest", ("latest_at", "position")),)

    def key(self, _event: AnyEvent) -> str:
        """Every event concerns the log."""
        return LOG

    def fold(self, row: MomentRow | None, record: Record) -> MomentRow:
        """Extend the block, or begin the next one."""
        latest_at = record.recorded_at if row is None else max(row.latest_at, record.recorded_at)
        return MomentRow(
            log=LOG,
            block_no=record.position // BLOCK_POSITIONS,
            position=record.position,
            latest_at=latest_at,
        )


MOMENTS = Moments()
