"""Prunes the superseded checkpoints of runs that are still open.

A run that lives for months saves its state after every step, and resumes from the newest checkpoint
alone. An operator may fall back to the one before it.
"""

from datetime import datetime
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.database import Database

FEWEST_KEPT: Final = 2
"""The newest checkpoint and its parent."""

DEFAULT_KEPT: Final = 10

# A checkpoint below the oldest one to keep, counted from the newest and without the void ones.
SUPERSEDED = """
FROM checkpoints AS old
WHERE old.run_id = {run_id}
    AND old.written_at < %(cutoff)s
    AND old.checkpoint_no < (
        SELECT checkpoint_no
        FROM checkpoints AS kept
        WHERE kept.run_id = {run_id} AND NOT is_void
        ORDER BY checkpoint_no DESC
        OFFSET %(keep_count)s - 1
        LIMIT 1
    )
"""

# An operator's fallback to the parent takes FOR UPDATE, so the newest one stays the newest until
# the transaction ends; a worker's writes are not blocked. Locked leases are left for a later call.
LOCK_OPEN_RUNS = f"""
SELECT run_id
FROM leases
WHERE ended_at IS NULL
    AND run_id > %(after)s
    AND EXISTS (SELECT {SUPERSEDED.format(run_id="leases.run_id")})
ORDER BY run_id
LIMIT %(limit)s
FOR KEY SHARE SKIP LOCKED
"""

DELETE_SUPERSEDED = f"""
DELETE FROM checkpoints
WHERE ctid = ANY(ARRAY(
    SELECT superseded.ctid
    FROM unnest(%(run_ids)s::text[]) AS open(run_id)
    CROSS JOIN LATERAL (SELECT old.ctid {SUPERSEDED.format(run_id="open.run_id")}) AS superseded
    LIMIT %(row_limit)s
))
"""


class SupersededCheckpoints:
    """Deletes the checkpoints that an open run does not need any more."""

    def __init__(self, database: Database, *, runs_per_batch: int, rows_per_statement: int) -> None:
        self._database = database
        self._runs_per_batch = runs_per_batch
        self._rows_per_statement = rows_per_statement

    def prune(self, cutoff: datetime, *, keep_count: int) -> int:
        """Delete those written before `cutoff`, but keep the newest `keep_count` of each run;
        returns how many were deleted. One transaction for a batch of runs."""
        wanted = {"cutoff": cutoff, "keep_count": keep_count, "limit": self._runs_per_batch}
        deleted_count, after = 0, ""
        while True:
            with self._database.transaction() as cursor:
                found = cursor.execute(LOCK_OPEN_RUNS, {**wanted, "after": after}).fetchall()
                run_ids = [row["run_id"] for row in found]
                deleted_count += self._delete(cursor, {**wanted, "run_ids": run_ids})
            if len(run_ids) < self._runs_per_batch:
                return deleted_count
            after = run_ids[-1]

    def _delete(self, cursor: Cursor[DictRow], wanted: dict[str, Any]) -> int:
        """Repeat the statement until it finds no more rows."""
        deleted_count = 0
        while wanted["run_ids"]:
            limited = {**wanted, "row_limit": self._rows_per_statement}
            found = cursor.execute(DELETE_SUPERSEDED, limited).rowcount
            deleted_count += found
            if found < self._rows_per_statement:
                break
        return deleted_count
