"""The journal's own stream: acts of people that concern no attempt."""

from hashlib import sha256
from typing import Final
from uuid import uuid4

from psycopg import Cursor
from psycopg.rows import DictRow, args_row

from recovery_journal.domain.journal_events import (
    JOURNAL_STREAM,
    AnyJournalEvent,
    EventSkipped,
    journal_tag_of,
)
from recovery_journal.log.mapper import encode
from recovery_journal.log.open_writers import appending_briefly
from recovery_journal.log.rows import COLUMNS, Row
from recovery_journal.postgres.database import one
from recovery_journal.process.identity import actor

# One act at a time: each takes the next version. The lock is on the table of skipped events,
# because any role that may append to the log can hold a lock on the log.
BE_ALONE: Final = "LOCK TABLE skipped_events IN SHARE ROW EXCLUSIVE MODE"

NEXT_VERSION: Final = """
SELECT coalesce(max(originator_version), 0) + 1 AS version
FROM journal_events
WHERE originator_id = %(stream)s
"""

APPEND: Final = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%(stream)s, %(version)s, %(tag)s, %(state)s)
RETURNING notification_id AS position
"""

NOTE_SKIPPED: Final = """
INSERT INTO skipped_events (position, version)
VALUES (%(position)s, %(version)s)
"""

FIND: Final = f"""
SELECT {COLUMNS}
FROM journal_events
WHERE notification_id = %(position)s
"""


def find(cursor: Cursor[DictRow], position: int) -> Row | None:
    """The stored event at a position; None where there is none."""
    with cursor.connection.cursor(binary=True, row_factory=args_row(Row)) as finding:
        return finding.execute(FIND, {"position": position}).fetchone()


def append(
    cursor: Cursor[DictRow],
    event_type: type[AnyJournalEvent],
    *,
    by: str,
    reason: str,
    **fields: object,
) -> AnyJournalEvent:
    """Record a person's act, in the caller's transaction. Raises `AppendBlocked`."""
    cursor.execute(BE_ALONE)
    row = one(cursor.execute(NEXT_VERSION, {"stream": JOURNAL_STREAM}))
    event = event_type(
        originator_version=row["version"],
        event_id=uuid4().hex,
        recorded_by=actor("person", by),
        reason=reason,
        **fields,  # type: ignore[arg-type]  # by each event's own fields
    )
    stored = {
        "stream": JOURNAL_STREAM,
        "version": event.originator_version,
        "tag": journal_tag_of(event),
        "state": encode(event),
    }
    with appending_briefly(cursor, JOURNAL_STREAM):
        cursor.execute(APPEND, stored)
    return event


def skip(cursor: Cursor[DictRow], stored: Row, *, by: str, reason: str, obstacle: str) -> None:
    """Make every reader pass over a stored event, which `find` has found, from the end of the
    caller's transaction on."""
    event = append(
        cursor,
        EventSkipped,
        by=by,
        reason=reason,
        position=stored.position,
        attempt_id=stored.stream,
        version=stored.version,
        stored_tag=stored.tag,
        state_digest=f"sha256:{sha256(stored.state).hexdigest()}",
        obstacle=obstacle,
    )
    position = {"position": stored.position, "version": event.originator_version}
    cursor.execute(NOTE_SKIPPED, position)
