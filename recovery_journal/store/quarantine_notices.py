"""The pending notices of quarantines, each written in the transaction of its quarantine."""

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.events import Confirmed, Quarantined, StaleWriteRefused
from recovery_journal.domain.recovery import Stage
from recovery_journal.store.move import Move

INSERT_NOTICES = """
INSERT INTO pending_quarantine_notices (attempt_id, version)
SELECT *
FROM unnest(%(attempt_ids)s::text[], %(versions)s::bigint[])
"""

FORGET = "DELETE FROM pending_quarantine_notices WHERE attempt_id = ANY(%(attempt_ids)s::text[])"


def note_quarantines(cursor: Cursor[DictRow], moves: Sequence[Move]) -> None:
    """Add a notice for each attempt that these moves quarantine; delete those of attempts that
    leave quarantine."""
    entering = [event for move in moves for event in move.events if isinstance(event, Quarantined)]
    leaving = [
        move.recovery.attempt_id
        for move in moves
        if move.recovery.stage is Stage.QUARANTINED
        and not all(isinstance(event, Confirmed | StaleWriteRefused) for event in move.events)
    ]
    if leaving:
        cursor.execute(FORGET, {"attempt_ids": leaving})
    if entering:
        noted = {
            "attempt_ids": [event.originator_id for event in entering],
            "versions": [event.originator_version for event in entering],
        }
        cursor.execute(INSERT_NOTICES, noted)
