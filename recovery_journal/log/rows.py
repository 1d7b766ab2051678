"""The rows of the log, and the events in them.

A block of rows is decoded in one call, because a call per event takes twice as long. Whatever is
not as it should be in a block is then found row by row.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from recovery_journal.domain.errors import StreamUnusable
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.journal_events import JOURNAL_STREAM, AnyJournalEvent
from recovery_journal.log.mapper import decode, decode_block, decode_journal_event
from recovery_journal.projections.projection import Record

COLUMNS: Final = """originator_id, originator_version, topic, state, notification_id, recorded_at,
    notification_id IN (SELECT position FROM skipped_events) AS is_skipped"""
"""The columns that every query of whole rows selects, in the order of the fields of `Row`."""


RowTuple: TypeAlias = tuple[str, int, str, bytes, int, datetime, bool]
"""A row as it is read in blocks: naming its columns would take as long as decoding its event."""


class Row(NamedTuple):
    """One row of the log."""

    stream: str
    version: int
    tag: str
    state: bytes
    position: int
    recorded_at: datetime
    is_skipped: bool

    @property
    def is_of_an_attempt(self) -> bool:
        """Whether folds over attempts read it: not the journal's own stream, and nothing that a
        person has skipped."""
        return self.stream != JOURNAL_STREAM and not self.is_skipped

    def event(self) -> AnyEvent:
        """Its event. Raises `UnknownEvent`, `CorruptEvent`."""
        return decode(
            stream=self.stream,
            version=self.version,
            tag=self.tag,
            state=self.state,
            position=self.position,
        )

    def record(self) -> Record:
        """Its event with position and time. Raises as `event` does."""
        return Record(self.event(), self.position, self.recorded_at)

    def journal_event(self) -> AnyJournalEvent:
        """Its event, in the journal's own stream. Raises as `event` does."""
        return decode_journal_event(
            version=self.version, tag=self.tag, state=self.state, position=self.position
        )


_record: Final[Callable[[tuple[AnyEvent, int, datetime]], Record]] = partial(tuple.__new__, Record)
"""`Record._make`, without the Python in it."""


def decode_rows(rows: Sequence[RowTuple]) -> tuple[list[Record], StreamUnusable | None]:
    """The events of attempts in these rows: all of them, or those before the first that cannot be
    read, and its error."""
    if not rows:
        return [], None
    streams, versions, tags, states, positions, times, _ = zip(*rows, strict=True)
    try:
        events = decode_block(streams, versions, tags, states)
    except ValueError:
        return _one_by_one(rows)
    return list(map(_record, zip(events, positions, times, strict=True))), None


def _one_by_one(rows: Sequence[RowTuple]) -> tuple[list[Record], StreamUnusable | None]:
    records: list[Record] = []
    for row in rows:
        try:
            records.append(Row(*row).record())
        except StreamUnusable as error:
            return records, error
    return records, None
