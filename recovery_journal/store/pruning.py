"""Deletes what ended runs have stored, and what open runs have superseded. The log, and so the
history of every attempt, stays.

A pruned run keeps its row with the digest of its input, and its attempts keep their lease rows with
the digests of their results. Texts of failures are erased by their age, of any run. A pruned run
cannot be attempted again: restarted from its input it would repeat its effects under the keys that
they had before. So `acquire` raises `RunPruned`.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.postgres.database import Database, one
from recovery_journal.store.superseded_checkpoints import (
    DEFAULT_KEPT,
    FEWEST_KEPT,
    SupersededCheckpoints,
)

RUNS_PER_BATCH: Final = 500
ROWS_PER_STATEMENT: Final = 10_000
LONGEST_AGE: Final = timedelta(days=36_500)
KEPT: Final = range(FEWEST_KEPT, 2**31)

CUTOFF = """
SELECT clock_timestamp() - make_interval(secs => %(age_s)s) AS cutoff
"""

# A worker that opens an attempt locks the run's row first, so no attempt of a locked run can begin.
# Locked rows are skipped: another transaction is opening an attempt of the run, or is pruning it.
LOCK_RUNS = """
SELECT run_id
FROM runs
WHERE pruned_at IS NULL
    AND run_id > %(after)s
    AND EXISTS (SELECT FROM leases WHERE leases.run_id = runs.run_id)
    AND NOT EXISTS (
        SELECT
        FROM leases
        WHERE leases.run_id = runs.run_id
            AND (ended_at IS NULL OR ended_at >= %(cutoff)s)
    )
ORDER BY run_id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""

# The lock was taken by an older snapshot: an attempt may have been opened meanwhile.
CHECK_ENDED = """
SELECT run_id
FROM unnest(%(run_ids)s::text[]) AS locked(run_id)
WHERE NOT EXISTS (
    SELECT
    FROM leases
    WHERE leases.run_id = locked.run_id
        AND (ended_at IS NULL OR ended_at >= %(cutoff)s)
)
"""

MARK = """
UPDATE runs
SET pruned_at = clock_timestamp(), input = NULL
WHERE run_id = ANY(%(run_ids)s)
"""

# A run may have any number of rows; the limit lets each statement end within the session's
# timeouts.
DELETE_STEPS = """
DELETE FROM run_steps
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_steps WHERE run_id = ANY(%(run_ids)s) LIMIT %(limit)s
))
"""

DELETE_CHECKPOINTS = """
DELETE FROM checkpoints
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM checkpoints WHERE run_id = ANY(%(run_ids)s) LIMIT %(limit)s
))
"""

DELETE_ANNOUNCEMENTS = """
DELETE FROM announcements
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM announcements WHERE run_id = ANY(%(run_ids)s) LIMIT %(limit)s
))
"""

# Texts are erased by their age: those of a pruned run are older than its end, and old texts of an
# open run are history too.
ERASE_TEXTS = """
DELETE FROM error_texts
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM error_texts WHERE written_at < %(cutoff)s LIMIT %(limit)s
))
"""

ERASE_TEXTS_OF_RUNS = """
DELETE FROM error_texts
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM error_texts WHERE run_id = ANY(%(run_ids)s) LIMIT %(limit)s
))
"""

FORGET_RESULTS = """
UPDATE leases
SET result = NULL
WHERE ctid = ANY(ARRAY(
    SELECT ctid
    FROM leases
    WHERE run_id = ANY(%(run_ids)s) AND result IS NOT NULL
    LIMIT %(limit)s
))
"""


class Pruned(Struct, frozen=True, kw_only=True):
    """How much was deleted: of ended runs, including their inputs, and of open ones."""

    runs: int = 0
    run_steps: int = 0
    checkpoints: int = 0
    announcements: int = 0
    results: int = 0
    superseded_checkpoints: int = 0
    error_texts: int = 0

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            runs=self.runs + other.runs,
            run_steps=self.run_steps + other.run_steps,
            checkpoints=self.checkpoints + other.checkpoints,
            announcements=self.announcements + other.announcements,
            results=self.results + other.results,
            superseded_checkpoints=self.superseded_checkpoints + other.superseded_checkpoints,
            error_texts=self.error_texts + other.error_texts,
        )


class Pruning:
    """Prunes runs of which every attempt has ended, one transaction for a batch of runs; and the
    superseded checkpoints of the others."""

    def __init__(
        self,
        database: Database,
        *,
        runs_per_batch: int = RUNS_PER_BATCH,
        rows_per_statement: int = ROWS_PER_STATEMENT,
    ) -> None:
        self._database = database
        self._runs_per_batch = runs_per_batch
        self._rows_per_statement = rows_per_statement
        self._superseded = SupersededCheckpoints(
            database, runs_per_batch=runs_per_batch, rows_per_statement=rows_per_statement
        )

    def prune(self, older_than: timedelta, *, keep_checkpoints: int = DEFAULT_KEPT) -> Pruned:
        """Prune the runs whose attempts all ended longer ago than this, by the database's clock. Of
        open runs, prune checkpoints written longer ago than this except the newest
        `keep_checkpoints`. Erase texts of failures that are older than this, of any run.

        A batch that was pruned stays pruned if a later one fails. Raises `InvalidInput`,
        `ServerUnavailable`, `StoreBusy`.
        """
        age_s = inputs.duration(
            "older_than", older_than, shortest=timedelta(0), longest=LONGEST_AGE
        )
        keep_count = inputs.whole_number("keep_checkpoints", keep_checkpoints, KEPT)
        with self._database.cursor() as cursor:
            found = one(cursor.execute(CUTOFF, {"age_s": age_s}))
        superseded = self._superseded.prune(found["cutoff"], keep_count=keep_count)
        erased = self._erase_texts(found["cutoff"])
        return self._ended(found["cutoff"]) + erased + Pruned(superseded_checkpoints=superseded)

    def _ended(self, cutoff: datetime) -> Pruned:
        pruned, after = Pruned(), ""
        while True:
            run_ids, batch = self._batch(cutoff, after)
            pruned += batch
            if len(run_ids) < self._runs_per_batch:
                return pruned
            after = run_ids[-1]

    def _batch(self, cutoff: datetime, after: str) -> tuple[list[str], Pruned]:
        """The runs that were examined, in order, and what was deleted of them."""
        wanted = {"cutoff": cutoff, "after": after, "limit": self._runs_per_batch}
        with self._database.transaction() as cursor:
            taken = [row["run_id"] for row in cursor.execute(LOCK_RUNS, wanted).fetchall()]
            again = {"run_ids": taken, "cutoff": cutoff}
            ended = [row["run_id"] for row in cursor.execute(CHECK_ENDED, again).fetchall()]
            return taken, self._forget(cursor, ended)

    def _forget(self, cursor: Cursor[DictRow], run_ids: list[str]) -> Pruned:
        if not run_ids:
            return Pruned()
        cursor.execute(MARK, {"run_ids": run_ids})
        return Pruned(
            runs=len(run_ids),
            run_steps=self._all(cursor, DELETE_STEPS, run_ids),
            checkpoints=self._all(cursor, DELETE_CHECKPOINTS, run_ids),
            announcements=self._all(cursor, DELETE_ANNOUNCEMENTS, run_ids),
            results=self._all(cursor, FORGET_RESULTS, run_ids),
            error_texts=self._all(cursor, ERASE_TEXTS_OF_RUNS, run_ids),
        )

    def _erase_texts(self, cutoff: datetime) -> Pruned:
        """Erase the texts of failures that are older than the cutoff, of any run."""
        limits = {"cutoff": cutoff, "limit": self._rows_per_statement}
        count, erased = 0, self._rows_per_statement
        while erased >= self._rows_per_statement:
            with self._database.cursor() as cursor:
                erased = cursor.execute(ERASE_TEXTS, limits).rowcount
            count += erased
        return Pruned(error_texts=count)

    def _all(self, cursor: Cursor[DictRow], statement: str, run_ids: list[str]) -> int:
        """Repeat the statement until it finds no more rows."""
        limits = {"run_ids": run_ids, "limit": self._rows_per_statement}
        count = 0
        while True:
            changed = cursor.execute(statement.encode(), limits).rowcount
            count += changed
            if changed < self._rows_per_statement:
                return count
