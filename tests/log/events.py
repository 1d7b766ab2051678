"""Events for tests of the log, which does not care what they mean."""

from collections.abc import Sequence
from typing import LiteralString

from recovery_journal.domain.events import AnyEvent, Confirmed, WriteKind
from recovery_journal.log.appender import append as append_within
from tests.domain.specimens import RUN_ID, SWEEPER, fence
from tests.log.event_log import EventLog

ALLOW_VERSION_0: LiteralString = (
    "ALTER TABLE journal_events DROP CONSTRAINT journal_events_originator_version_check"
)
"""Takes from the table what keeps a stream from beginning below its first version."""


def an_event(attempt_id: str, version: int, event_id: str = "") -> AnyEvent:
    """An event at this place; without an id, the decision is named after the place."""
    return Confirmed(
        originator_id=attempt_id,
        originator_version=version,
        event_id=event_id or f"{attempt_id}/{version}",
        run_id=RUN_ID,
        recorded_by=SWEEPER,
        fence=fence(),
        write=WriteKind.RUN_STEP,
        ordinal=version,
    )


def a_stream(attempt_id: str, count: int, *, first: int = 1) -> list[AnyEvent]:
    """This many events of one stream, in order."""
    return [an_event(attempt_id, version) for version in range(first, first + count)]


def append(event_log: EventLog, events: Sequence[AnyEvent]) -> list[int]:
    """Append these events in a transaction of their own; their positions."""
    with event_log.database.transaction() as cursor:
        append_within(events, cursor)
        return [record.position for record in event_log.records(cursor, events)]


def version_of(event_log: EventLog, attempt_id: str) -> int:
    """How far a stream has come."""
    found = event_log.load_many([attempt_id]).get(attempt_id, [])
    assert isinstance(found, list), found
    return len(found)
