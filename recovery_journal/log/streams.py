"""Attempts from their stored streams; each gets its own answer.

Events that a person has skipped are passed over, but their versions count: the next event comes
after them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.contradictions import contradiction
from recovery_journal.domain.errors import CorruptEvent, ImpossibleEvent, StreamUnusable
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.recovery import Recovery, evolve
from recovery_journal.log.mapper import UNREADABLE
from recovery_journal.log.rows import COLUMNS, Row, RowTuple, decode_rows
from recovery_journal.postgres.arrays import array
from recovery_journal.projections.projection import Record

STREAMS: Final = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE originator_id = ANY(%(streams)s::text[])
ORDER BY originator_id, originator_version
"""

STATES: Final = b"SELECT state FROM journal_events WHERE originator_id = %(stream)s"

FIND: Final = f"""
SELECT {COLUMNS}
FROM journal_events
JOIN unnest(%(streams)s::text[], %(versions)s::bigint[])
    AS wanted(originator_id, originator_version)
    USING (originator_id, originator_version)
"""

LAST_VERSIONS: Final = """
SELECT wanted.originator_id, (
    SELECT max(originator_version)
    FROM journal_events AS event
    WHERE event.originator_id = wanted.originator_id
) AS version
FROM unnest(%(streams)s::text[]) AS wanted(originator_id)
"""

EventKey: TypeAlias = tuple[str, int]
"""Stream and version."""


class _EventId(msgspec.Struct):
    """The field that every event has, whatever else this program knows of it."""

    event_id: str


_event_id_in: Final = msgspec.json.Decoder(_EventId).decode


class Stream(NamedTuple):
    """The rows of one stream, in order."""

    rows: list[Row]

    def records(self) -> list[Record]:
        """Its events that are not skipped. Raises `UnknownEvent`, `CorruptEvent`."""
        return [row.record() for row in self.rows if not row.is_skipped]

    def recovery(self, *, upto: int | None = None) -> Recovery | None:
        """The attempt after these events, or after the `upto`-th, whether or not they are
        consistent. Raises as `records` does."""
        recovery: Recovery | None = None
        for row in self._upto(upto):
            if not row.is_skipped:
                recovery = evolve(recovery, row.event())
        return self._at_its_version(recovery, upto)

    def decidable(self) -> Recovery | None:
        """The attempt, for a decision. Raises `StreamUnusable` where an event cannot be read or
        contradicts those before it."""
        recovery: Recovery | None = None
        for row in self.rows:
            if row.is_skipped:
                continue
            event = row.event()
            if recovery and (reason := contradiction(recovery, event)):
                raise ImpossibleEvent(
                    row.stream,
                    version=row.version,
                    tag=row.tag,
                    position=row.position,
                    reason=reason,
                )
            recovery = evolve(recovery, event)
        return self._at_its_version(recovery, None)

    def position_after(self, version: int) -> int | None:
        """The position of the first event behind a version that is not skipped; None where there is
        none."""
        behind = (it.position for it in self.rows if it.version > version and not it.is_skipped)
        return next(behind, None)

    def _upto(self, version: int | None) -> list[Row]:
        return [row for row in self.rows if version is None or row.version <= version]

    def _at_its_version(self, recovery: Recovery | None, upto: int | None) -> Recovery | None:
        rows = self._upto(upto)
        if recovery is None or not rows or rows[-1].version == recovery.version:
            return recovery
        return replace(recovery, version=rows[-1].version)


def streams(cursor: Cursor[DictRow], attempt_ids: Sequence[str]) -> dict[str, Stream]:
    """Whole streams in one query; those that exist."""
    return _streams(_rows(cursor, STREAMS, {"streams": array(attempt_ids)}))


def decidable(
    cursor: Cursor[DictRow], attempt_ids: Sequence[str]
) -> dict[str, Recovery | StreamUnusable]:
    """The attempts, for decisions; those that exist, or the reason why one cannot be decided on."""
    rows = _rows(cursor, STREAMS, {"streams": array(attempt_ids)})
    records, error = decode_rows(rows)
    if error is None and not any(row[6] for row in rows):
        folded = _folded(records)
        if folded is not None:
            return folded
    found: dict[str, Recovery | StreamUnusable] = {}
    for attempt_id, stream in _streams(rows).items():
        try:
            recovery = stream.decidable()
        except StreamUnusable as error:
            found[attempt_id] = error
        else:
            if recovery is not None:
                found[attempt_id] = recovery
    return found


def find(
    cursor: Cursor[DictRow], events: Iterable[AnyEvent]
) -> dict[EventKey, Record | StreamUnusable]:
    """The stored events in the places of these events; the error where one cannot be read."""
    places = [(event.originator_id, event.originator_version) for event in events]
    wanted = {
        "streams": array([stream for stream, _ in places]),
        "versions": array([version for _, version in places]),
    }
    found: dict[EventKey, Record | StreamUnusable] = {}
    for row in map(Row._make, _rows(cursor, FIND, wanted)):
        try:
            found[row.stream, row.version] = row.record()
        except StreamUnusable as error:
            found[row.stream, row.version] = error
    return found


def has_decision(cursor: Cursor[DictRow], attempt_id: str, event_id: str) -> bool:
    """Whether a decision is in the stream, whether or not its events can be read: its reply was
    lost then, and not its commit (rule R5)."""
    rows = cursor.execute(STATES, {"stream": attempt_id}, prepare=True).fetchall()
    return any(_event_id(row["state"]) == event_id for row in rows)


def _event_id(state: bytes) -> str | None:
    try:
        return _event_id_in(state).event_id
    except UNREADABLE:
        return None


def last_versions(cursor: Cursor[DictRow], attempt_ids: Sequence[str]) -> dict[str, int]:
    """The last version of each of these streams; 0 where there is none."""
    wanted = {"streams": array(attempt_ids)}
    rows = cursor.execute(LAST_VERSIONS, wanted, prepare=True).fetchall()
    return {row["originator_id"]: row["version"] or 0 for row in rows}


def _rows(cursor: Cursor[DictRow], statement: str, wanted: dict[str, str]) -> list[RowTuple]:
    with cursor.connection.cursor(binary=True, row_factory=tuple_row) as reading:
        return reading.execute(statement, wanted, prepare=True).fetchall()


def _streams(rows: Iterable[RowTuple]) -> dict[str, Stream]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(Row(*row))
    return {attempt_id: Stream(of_one) for attempt_id, of_one in found.items()}


def _folded(records: Sequence[Record]) -> dict[str, Recovery | StreamUnusable] | None:
    """The attempts after these events; None where one of their streams must be examined alone."""
    found: dict[str, Recovery | StreamUnusable] = {}
    recovery: Recovery | None = None
    for event, _, _ in records:
        if recovery is None or recovery.attempt_id != event.originator_id:
            recovery = None
        elif contradiction(recovery, event) is not None:
            return None
        try:
            recovery = found[event.originator_id] = evolve(recovery, event)
        except CorruptEvent:
            return None
    return found
