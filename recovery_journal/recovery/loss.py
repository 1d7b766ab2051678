"""Finds lost leases and takes them back: the first step of every recovery.

A lease is lost when its worker has not renewed it in time, when its worker's session lock is gone,
when a host reported the worker's death, or when the sweeper that was recovering it is gone. The
sweeper that takes it checks the loss again under the row's lock, draws a new fence and appends the
evidence, all in one transaction. Once that has committed, the old owner can write nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import seize, time_out
from recovery_journal.domain.commands.pipeline import expire
from recovery_journal.domain.commands.quarantine import quarantine_missing_version
from recovery_journal.domain.errors import StoreBusy
from recovery_journal.domain.events import SeizeReason
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.identity import actor
from recovery_journal.recovery.outage import Outage
from recovery_journal.recovery.session_watch import SessionWatch
from recovery_journal.store.code_version_demand import MISSED, pace_s
from recovery_journal.store.lease_row import COLUMNS, LockedLease, lock_leases, locking
from recovery_journal.store.ledger import Answer, Events, Ledger
from recovery_journal.store.set_aside import Halving

LOST = """
is_watched
    AND status = 'held'
    AND (retry_at IS NULL OR retry_at <= clock_timestamp())
    AND (
        loss IS NOT NULL
        OR session_lock = ANY(%(ended_locks)s::integer[])
        OR greatest(expires_at, %(up_since)s + make_interval(secs => ttl_s))
            + make_interval(secs => %(grace_s)s) < clock_timestamp()
    )
"""

# A failed step waits for its retry; otherwise the sweeper that had the recovery stopped renewing
# it.
ORPHANED = """
is_watched
    AND status = 'recovering'
    AND CASE
        WHEN retry_at IS NOT NULL THEN retry_at <= clock_timestamp()
        ELSE greatest(expires_at, %(up_since)s + make_interval(secs => %(sweeper_ttl_s)s))
            + make_interval(secs => %(grace_s)s) < clock_timestamp()
    END
"""

OVERDUE = """
is_watched
    AND (retry_at IS NULL OR retry_at <= clock_timestamp())
    AND deadline_at < clock_timestamp()
"""

# One scan for all kinds of loss: one query for each kind would cost four scans of an idle fleet.
# The second half is true of every lease that may be lost, and rejects a healthy lease after a few
# comparisons.
FIND_WORK = f"""
SELECT coalesce(bool_or({OVERDUE}), false) AS has_overdue,
    coalesce(bool_or({ORPHANED}), false) AS has_orphaned,
    coalesce(bool_or({LOST}), false) AS has_lost,
    coalesce(bool_or({MISSED}), false) AS has_missed
FROM leases
WHERE is_watched
    AND (
        expires_at < clock_timestamp()
        OR loss IS NOT NULL
        OR session_lock = ANY(%(ended_locks)s::integer[])
        OR deadline_at < clock_timestamp()
        OR retry_at <= clock_timestamp()
        OR (
            status = 'ready'
            AND renewed_at < clock_timestamp() - make_interval(secs => %(version_wait_s)s)
        )
    )
"""

# The condition is evaluated again under the lock, on the newest version of the row. Skipping locked
# rows lets sweepers share the work, and a stuck writer blocks no sweeper. The rows come in the
# order of the index and each cohort begins `after` the one before, so that finding a hundred
# cohorts costs little more than finding one. The statement returns the time itself, because the
# server's clock may have been set back before the next statement.
LOCK_LOST = """
SELECT {columns}
FROM leases
WHERE {condition}
    AND (%(attempt_ids)s::text[] IS NULL OR attempt_id = ANY(%(attempt_ids)s))
    AND attempt_id > %(after)s
ORDER BY attempt_id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""


def _lost(condition: str) -> str:
    return locking(LOCK_LOST.format(columns=COLUMNS, condition=condition), is_brief=True)


TAKE_LOST = _lost(LOST)
TAKE_ORPHANED = _lost(ORPHANED)
TAKE_OVERDUE = _lost(OVERDUE)
TAKE_MISSED = _lost(MISSED)

# A reported death is no evidence of a fleet-wide loss. A session lock that is gone is such
# evidence, also within its grace and after its lease was taken back: workers that die together are
# not always seen to die together.
FLEET = f"""
SELECT count(DISTINCT worker_id)
        FILTER (
            WHERE loss IS NULL AND (session_lock = ANY(%(gone_locks)s::integer[]) OR {LOST})
        ) AS lost_count,
    count(DISTINCT worker_id) AS holding_count,
    cardinality(%(recently_ended_locks)s::integer[])
        - count(DISTINCT session_lock) FILTER (WHERE session_lock = ANY(%(recently_ended_locks)s))
        AS taken_count
FROM leases
WHERE is_watched AND status = 'held'
"""


Cohort = dict[str, Answer]
"""The attempts of a cohort: each as it was taken, or why it could not be."""


class SweepWork(Struct, frozen=True, kw_only=True):
    """Which kinds of work a sweep would find."""

    has_overdue: bool
    has_orphaned: bool
    has_lost: bool
    has_missed: bool


class Losses:
    """Takes lost leases back, for this process's sweeper, in cohorts: the next is taken when it is
    asked for."""

    def __init__(
        self, database: Database, ledger: Ledger, limits: Limits, session_watch: SessionWatch
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits
        self._session_watch = session_watch
        self._outage = Outage(database)

    def find(self) -> SweepWork:
        """Check whether there is anything to take; on an idle fleet a sweep queries nothing
        else."""
        with self._database.transaction() as cursor:
            row = one(cursor.execute(FIND_WORK, self._when(cursor)))
        return SweepWork(**row)

    def end_overdue(self) -> Iterator[Cohort]:
        """Fence attempts past their execution timeout, and end or quarantine them."""
        decision = self._decision("the execution timeout passed")

        def command(recovery: Recovery, _lost: LockedLease) -> Events:
            return time_out(recovery, decision, self._limits.policy)

        return self._take(TAKE_OVERDUE, command)

    def quarantine_missed(self) -> Iterator[Cohort]:
        """Quarantine ready attempts whose code version no worker has any more."""
        decision = self._decision("no worker of its code version came")

        def command(recovery: Recovery, _lost: LockedLease) -> Events:
            return quarantine_missing_version(recovery, decision, self._limits.policy)

        return self._take(TAKE_MISSED, command)

    def is_fleet_wide(self) -> bool:
        """Whether the present losses are so much of the fleet that they are no evidence against the
        runs.

        Evaluated before the first cohort is taken, because every cohort makes the loss seem
        smaller.
        """
        with self._database.transaction() as cursor:
            found = one(cursor.execute(FLEET, self._when(cursor)))
        lost_count = found["lost_count"] + found["taken_count"]
        holding_count = found["holding_count"] + found["taken_count"]
        is_many = lost_count >= self._limits.fleet_workers
        return bool(is_many and lost_count >= self._limits.fleet_share * holding_count)

    def take_lost(
        self, attempt_ids: Sequence[str] | None = None, *, is_fleet_wide: bool = False
    ) -> Iterator[Cohort]:
        """Step 1: declare each lost lease lost, on the evidence of its row."""
        decision = cache(self._decision)  # one for all that were lost for the same reason

        def command(recovery: Recovery, lost: LockedLease) -> Events:
            row = lost.row
            session = self._session_watch.loss_of(row.session_lock) if not row.loss else None
            silence = LossReason.SESSION_LOST if session else LossReason.TTL
            return expire(
                recovery,
                decision(row.loss_reason or ""),
                lease=row.view(seen_at=lost.seen_at, grace_s=self._limits.grace_s),
                loss=LossReason(row.loss or silence),
                fence=lost.new_fence,
                is_fleet_wide=is_fleet_wide and row.loss is None,
                session=session,
            )

        return self._take(TAKE_LOST, command, attempt_ids)

    def take_orphaned(self) -> Iterator[Cohort]:
        """Take recoveries whose sweeper is gone, or whose failed step is due again."""
        decision = self._decision()

        def command(recovery: Recovery, orphaned: LockedLease) -> Events:
            why = SeizeReason.RETRY_DUE if orphaned.row.retry_at else SeizeReason.SWEEPER_LOST
            return seize(recovery, decision, fence=orphaned.new_fence, why=why)

        return self._take(TAKE_ORPHANED, command)

    def _take(
        self,
        statement: str,
        command: Callable[[Recovery, LockedLease], Events],
        attempt_ids: Sequence[str] | None = None,
    ) -> Iterator[Cohort]:
        """Cohort after cohort, each after the one before, until one that started from the first
        lease is not full."""
        after = ""
        while True:
            taken = self._cohort(statement, command, after, attempt_ids)
            yield taken
            is_full = len(taken) == self._limits.cohort_size
            if not is_full and not after:
                return
            after = max(taken) if is_full else ""

    def _cohort(
        self,
        statement: str,
        command: Callable[[Recovery, LockedLease], Events],
        after: str,
        attempt_ids: Sequence[str] | None,
    ) -> Cohort:
        """Lock the rows of a cohort `after` the one before, and decide on each. An attempt that
        another transaction has locked is left alone for now."""
        taken: Cohort = {}
        parts = Halving(attempt_ids)
        for part in parts:
            locked: list[LockedLease] = []
            wanted = {
                "attempt_ids": None if part is None else list(part),
                "limit": self._limits.cohort_size,
                "after": after,
            }
            try:
                with self._database.transaction() as cursor:
                    locked = lock_leases(cursor, statement, {**self._when(cursor), **wanted})
                    if locked:
                        taken |= self._ledger.decide(cursor, locked, command)
            except StoreBusy as error:
                left_out = parts.halve([one.row.attempt_id for one in locked], error)
                if left_out is not None:
                    with self._database.transaction() as cursor:
                        self._ledger.set_aside(cursor, {left_out: error})
                    taken[left_out] = error
        return taken

    def _when(self, cursor: Cursor[DictRow]) -> dict[str, Any]:
        """The clock values that the conditions compare with."""
        return {
            "up_since": self._outage.over_since(cursor),
            "grace_s": self._limits.grace_s,
            "ended_locks": self._session_watch.ended(),
            "gone_locks": self._session_watch.gone(),
            "recently_ended_locks": self._session_watch.recently_ended(),
            "sweeper_ttl_s": self._limits.sweeper_ttl_s,
            "version_wait_s": self._limits.policy.version_wait_s,
            "asking_pace_s": pace_s(self._limits.policy),
        }

    def _decision(self, reason: str = "") -> Decision:
        return Decision(event_id=uuid4().hex, by=actor("sweeper"), reason=reason)
