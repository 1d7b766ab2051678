"""Attempts from their stored streams; each gets its own answer.

Events that a person has skipped are passed over, but their versions count: the next event comes
after them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.contradictions import contradiction
from recovery_journal.domain.errors import CorruptEvent, ImpossibleEvent, StreamUnusable
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.domain.recovery import Recovery, evolve
from recovery_journal.log.appender import record_of
from recovery_journal.log.mapper import decode_block
from recovery_journal.postgres.arrays import array
from recovery_journal.projections.projection import Record

LOAD_MANY: Final = b"""
SELECT originator_id, originator_version, topic, state, notification_id, recorded_at,
    notification_id IN (SELECT position FROM skipped_events) AS is_skipped
FROM journal_events
WHERE originator_id = ANY(%(streams)s)
ORDER BY originator_id, originator_version
"""

STREAMS: Final = b"""
SELECT originator_id, originator_version, topic, state,
    notification_id IN (SELECT position FROM skipped_events) AS is_skipped
FROM journal_events
WHERE originator_id = ANY(%(streams)s::text[])
ORDER BY originator_id, originator_version
"""


class Stream(NamedTuple):
    """The rows of one stream, in order."""

    rows: list[DictRow]

    def records(self) -> list[Record]:
        """Its events that are not skipped. Raises `UnknownEvent`, `CorruptEvent`."""
        return [record_of(row) for row in self.rows if not row["is_skipped"]]

    def recovery(self, *, upto: int | None = None) -> Recovery | None:
        """The attempt after these events, or after the `upto`-th, whether or not they are
        consistent. Raises as `records` does."""
        recovery: Recovery | None = None
        for row in self._upto(upto):
            if not row["is_skipped"]:
                recovery = evolve(recovery, record_of(row).event)
        return self._at_its_version(recovery, upto)

    def decidable(self) -> Recovery | None:
        """The attempt, for a decision. Raises `StreamUnusable` where an event cannot be read or
        contradicts those before it."""
        recovery: Recovery | None = None
        for row in self.rows:
            if row["is_skipped"]:
                continue
            record = record_of(row)
            if recovery and (reason := contradiction(recovery, record.event)):
                raise _impossible(record, reason)
            recovery = evolve(recovery, record.event)
        return self._at_its_version(recovery, None)

    def position_after(self, version: int) -> int | None:
        """The position of the first event behind a version that is not skipped; None where there is
        none."""
        return next(
            (
                row["notification_id"]
                for row in self.rows
                if row["originator_version"] > version and not row["is_skipped"]
            ),
            None,
        )

    def _upto(self, version: int | None) -> list[DictRow]:
        return [row for row in self.rows if version is None or row["originator_version"] <= version]

    def _at_its_version(self, recovery: Recovery | None, upto: int | None) -> Recovery | None:
        rows = self._upto(upto)
        if recovery is None or not rows or rows[-1]["originator_version"] == recovery.version:
            return recovery
        return replace(recovery, version=rows[-1]["originator_version"])


def streams(cursor: Cursor[DictRow], attempt_ids: Sequence[str]) -> dict[str, Stream]:
    """Whole streams in one query; those that exist."""
    rows = cursor.execute(LOAD_MANY, {"streams": list(attempt_ids)}, prepare=True).fetchall()
    found: defaultdict[str, list[DictRow]] = defaultdict(list)
    for row in rows:
        found[row["originator_id"]].append(row)
    return {attempt_id: Stream(rows) for attempt_id, rows in found.items()}


def decidable(
    cursor: Cursor[DictRow], attempt_ids: Sequence[str]
) -> dict[str, Recovery | StreamUnusable]:
    """The attempts, for decisions; those that exist, or the reason why one cannot be decided on."""
    at_once = _all_at_once(cursor, attempt_ids)
    if at_once is not None:
        return at_once
    found: dict[str, Recovery | StreamUnusable] = {}
    for attempt_id, stream in streams(cursor, attempt_ids).items():
        try:
            recovery = stream.decidable()
        except StreamUnusable as error:
            found[attempt_id] = error
        else:
            if recovery is not None:
                found[attempt_id] = recovery
    return found


def _all_at_once(
    cursor: Cursor[DictRow], attempt_ids: Sequence[str]
) -> dict[str, Recovery | StreamUnusable] | None:
    """The attempts, decoded all at once; None where one of their events must be examined alone."""
    wanted = {"streams": array(attempt_ids)}
    with cursor.connection.cursor(binary=True, row_factory=tuple_row) as reading:
        rows = reading.execute(STREAMS, wanted, prepare=True).fetchall()
    if any(row[4] for row in rows):
        return None
    try:
        events = decode_block([row[:3] for row in rows], [row[3] for row in rows])
        return _folded(events)
    except (ValueError, CorruptEvent):  # JSON errors are values too
        return None


def _folded(events: Sequence[AnyEvent]) -> dict[str, Recovery | StreamUnusable] | None:
    found: dict[str, Recovery | StreamUnusable] = {}
    recovery: Recovery | None = None
    for event in events:
        if recovery is None or recovery.attempt_id != event.originator_id:
            recovery = None
        elif contradiction(recovery, event) is not None:
            return None
        recovery = found[event.originator_id] = evolve(recovery, event)
    return found


def _impossible(record: Record, reason: str) -> ImpossibleEvent:
    event = record.event
    return ImpossibleEvent(
        event.originator_id,
        version=event.originator_version,
        tag=tag_of(event),
        position=record.position,
        reason=reason,
    )
