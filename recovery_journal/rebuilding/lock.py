"""One rebuild in a schema at a time. The lock is the session's, so it dies with whoever has it."""

from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

TRY: Final = """
SELECT pg_try_advisory_lock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)) AS ours
"""

UNLOCK: Final = """
SELECT pg_advisory_unlock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0))
"""

# The two halves of the number; asking for the lock instead would keep a rebuild from starting.
IS_HELD: Final = """
SELECT EXISTS (
    SELECT
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint)
            = hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)
        AND objsubid = 1
        AND granted
) AS held
"""


def is_held(cursor: Cursor[DictRow], schema: str) -> bool:
    """Whether a rebuild is at work in the schema."""
    row = cursor.execute(IS_HELD, {"schema": schema}).fetchone()
    assert row is not None
    held: bool = row["held"]
    return held
