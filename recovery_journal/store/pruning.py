"""Forgetting what ended runs have stored, and what open runs have superseded. The log, and so the
history of every attempt, stays.

A pruned run keeps its row with the digest of its input, and its attempts their lease rows with
the digests of their results. What failures said is erased by its age, of whatever run. A pruned
run cannot be taken up again: started anew from its input it would do its effects once more under
the keys that they had before. So `acquire` answers `RunPruned`.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.postgres.database import Database
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

# Whoever opens an attempt locks the run's row first, so of a locked run nothing new begins.
# Locked ones are skipped: somebody is just opening an attempt of it, or prunes it already.
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

# The lock was taken on what an older snapshot saw: an attempt may have been opened meanwhile.
LOOK_AGAIN = """
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

# A run may have any number of rows; each statement ends within the session's limits.
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

# They are erased by their age: those of a pruned run are older than its end, and those of a run
# that goes on are history too.
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
    """How much was forgotten: of ended runs, whose inputs went too, and of open ones."""

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
        """Prune the runs whose every attempt ended longer ago than that, by the database's clock;
        of open runs, checkpoints written longer ago than that but the newest `keep_checkpoints`.
        What failures said longer ago than that is erased, of any run.

        What a batch has pruned stays so if a later one fails. Raises `InvalidInput`,
        `ServerUnavailable`, `StoreBusy`.
        """
        age_s = inputs.duration(
            "older_than", older_than, shortest=timedelta(0), longest=LONGEST_AGE
        )
        keep_count = inputs.whole_number("keep_checkpoints", keep_checkpoints, KEPT)
        with self._database.cursor() as cursor:
            found = cursor.execute(CUTOFF, {"age_s": age_s}).fetchone()
        assert found is not None
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
        """The runs that were looked at, in order, and what was forgotten of them."""
        wanted = {"cutoff": cutoff, "after": after, "limit": self._runs_per_batch}
        with self._database.transaction() as cursor:
            taken = [row["run_id"] for row in cursor.execute(LOCK_RUNS, wanted).fetchall()]
            again = {"run_ids": taken, "cutoff": cutoff}
            ended = [row["run_id"] for row in cursor.execute(LOOK_AGAIN, again).fetchall()]
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
        """Erase what failures said before that, of whatever runs."""
        limits = {"cutoff": cutoff, "limit": self._rows_per_statement}
        count, erased = 0, self._rows_per_statement
        while erased >= self._rows_per_statement:
            with self._database.cursor() as cursor:
                erased = cursor.execute(ERASE_TEXTS, limits).rowcount
            count += erased
        return Pruned(error_texts=count)

    def _all(self, cursor: Cursor[DictRow], statement: str, run_ids: list[str]) -> int:
        """Repeat the statement until it finds nothing more."""
        limits = {"run_ids": run_ids, "limit": self._rows_per_statement}
        count = 0
        while True:
            changed = cursor.execute(statement.encode(), limits).rowcount
            count += changed
            if changed < self._rows_per_statement:
                return count
