"""Finds lost leases and takes them back: the first step of every recovery.

A lease is lost when its worker has not renewed it in time, when its worker's session lock is gone,
when a host reported the worker's death, or when the sweeper that was recovering it is gone. The
sweeper that takes it checks the loss again under the row's lock, draws a new fence and appends the
evidence, all in one transaction. Once that has committed, the old owner can write nothing.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import seize, time_out
from recovery_journal.domain.commands.pipeline import expire
from recovery_journal.domain.commands.quarantine import quarantine_missing_version
from recovery_journal.domain.errors import RecoveryJournalError, StoreBusy
from recovery_journal.domain.events import AnyEvent, SeizeReason
from recovery_journal.domain.lease import Fence, LossReason
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor, sweeper_holder
from recovery_journal.recovery.outage import Outage
from recovery_journal.recovery.session_watch import SessionWatch
from recovery_journal.store.code_version_demand import MISSED, pace_s
from recovery_journal.store.lease_row import COLUMNS, SeenRow, by_attempt, read_seen
from recovery_journal.store.ledger import Ledger
from recovery_journal.store.move import Move
from recovery_journal.store.set_aside import BE_BRIEF, Halving, set_aside

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
# cohorts costs little more than finding one. The statement returns the time that it compared with,
# because the server's clock may have been set back before the next statement.
LOCK_LOST = """
SELECT {columns}, clock_timestamp() AS seen_at
FROM leases
WHERE {condition}
    AND (%(attempt_ids)s::text[] IS NULL OR attempt_id = ANY(%(attempt_ids)s))
    AND attempt_id > %(after)s
ORDER BY attempt_id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""

TAKE_LOST = LOCK_LOST.format(columns=COLUMNS, condition=LOST)
TAKE_ORPHANED = LOCK_LOST.format(columns=COLUMNS, condition=ORPHANED)
TAKE_OVERDUE = LOCK_LOST.format(columns=COLUMNS, condition=OVERDUE)
TAKE_MISSED = LOCK_LOST.format(columns=COLUMNS, condition=MISSED)

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

TakenLease = Recovery | RecoveryJournalError


class SweepWork(Struct, frozen=True, kw_only=True):
    """Which kinds of work a sweep would find."""

    has_overdue: bool
    has_orphaned: bool
    has_lost: bool
    has_missed: bool


Decide = Callable[[SeenRow, Recovery, Fence], tuple[AnyEvent, ...]]


class Losses:
    """Takes lost leases back, for this process's sweeper."""

    def __init__(
        self, database: Database, ledger: Ledger, limits: Limits, session_watch: SessionWatch
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits
        self._session_watch = session_watch
        self._outage = Outage(database)

    def look(self) -> SweepWork:
        """Check whether there is anything to take; on an idle fleet a sweep queries nothing
        else."""
        with self._database.transaction() as cursor:
            row = cursor.execute(FIND_WORK, self._when(cursor)).fetchone()
        assert row is not None
        return SweepWork(**row)

    def end_overdue(self, *, limit: int, after: str = "") -> dict[str, TakenLease]:
        """Fence attempts past their execution timeout, and end or quarantine them."""
        decision = self._decision("the execution timeout passed")

        def decide(_row: SeenRow, recovery: Recovery, _fence: Fence) -> tuple[AnyEvent, ...]:
            return time_out(recovery, decision, self._limits.policy)

        return self._take(TAKE_OVERDUE, decide, limit, after)

    def give_up_missed(self, *, limit: int, after: str = "") -> dict[str, TakenLease]:
        """Quarantine ready attempts whose code version no worker has any more."""
        decision = self._decision("no worker of its code version came")

        def decide(_row: SeenRow, recovery: Recovery, _fence: Fence) -> tuple[AnyEvent, ...]:
            return quarantine_missing_version(recovery, decision, self._limits.policy)

        return self._take(TAKE_MISSED, decide, limit, after)

    def is_fleet_wide(self) -> bool:
        """Whether the present losses are so much of the fleet that they are no evidence against the
        runs.

        Evaluated before the first cohort is taken, because every cohort makes the loss seem
        smaller.
        """
        with self._database.transaction() as cursor:
            found = cursor.execute(FLEET, self._when(cursor)).fetchone()
        assert found is not None
        lost_count = found["lost_count"] + found["taken_count"]
        holding_count = found["holding_count"] + found["taken_count"]
        is_many = lost_count >= self._limits.fleet_workers
        return bool(is_many and lost_count >= self._limits.fleet_share * holding_count)

    def take_lost(
        self,
        *,
        limit: int,
        after: str = "",
        attempt_ids: Sequence[str] | None = None,
        is_fleet_wide: bool = False,
    ) -> dict[str, TakenLease]:
        """Step 1: declare each lost lease lost, on the evidence of its row."""
        decision = cache(self._decision)  # one for all that were lost for the same reason

        def decide(row: SeenRow, recovery: Recovery, fence: Fence) -> tuple[AnyEvent, ...]:
            session = self._session_watch.loss_of(row.session_lock) if not row.loss else None
            silence = LossReason.SESSION_LOST if session else LossReason.TTL
            return expire(
                recovery,
                decision(row.loss_reason or ""),
                lease=row.view(seen_at=row.seen_at, grace_s=self._limits.grace_s),
                loss=LossReason(row.loss or silence),
                fence=fence,
                is_fleet_wide=is_fleet_wide and row.loss is None,
                session=session,
            )

        return self._take(TAKE_LOST, decide, limit, after, attempt_ids)

    def take_orphaned(self, *, limit: int, after: str = "") -> dict[str, TakenLease]:
        """Take recoveries whose sweeper is gone, or whose failed step is due again."""
        decision = self._decision()

        def decide(row: SeenRow, recovery: Recovery, fence: Fence) -> tuple[AnyEvent, ...]:
            why = SeizeReason.RETRY_DUE if row.retry_at else SeizeReason.SWEEPER_LOST
            return seize(recovery, decision, fence=fence, why=why)

        return self._take(TAKE_ORPHANED, decide, limit, after)

    def _take(
        self,
        statement: str,
        decide: Decide,
        limit: int,
        after: str,
        attempt_ids: Sequence[str] | None = None,
    ) -> dict[str, TakenLease]:
        """Lock the rows that the statement finds, decide on each, and record all at once; where
        another transaction has locked one of them, repeat with half as many at a time."""
        tried: list[str] = []

        def take(some: Sequence[str] | None) -> dict[str, TakenLease]:
            wanted = {
                "attempt_ids": None if some is None else list(some),
                "limit": limit,
                "after": after,
            }
            return self._take_some(statement, decide, wanted, tried)

        try:
            return take(attempt_ids)
        except StoreBusy as error:
            if not tried:
                raise
            return Halving(take, self._give_up).halve(list(tried), error)

    def _take_some(
        self, statement: str, decide: Decide, wanted: dict[str, Any], tried: list[str]
    ) -> dict[str, TakenLease]:
        """One transaction; `tried` then names the attempts that were locked, also where it
        fails."""
        with self._database.transaction() as cursor:
            parameters = {**self._when(cursor), **wanted}
            rows = read_seen(cursor, statement, parameters)
            tried[:] = [row.attempt_id for row in rows]
            if not rows:
                return {}
            cursor.execute(BE_BRIEF)
            return self._move(cursor, rows, decide)

    def _give_up(self, attempt_id: str, error: StoreBusy) -> TakenLease:
        """Another transaction holds what the next event of this attempt needs: leave the attempt
        for now."""
        with self._database.transaction() as cursor:
            set_aside(cursor, {attempt_id: error}, self._limits.policy)
        return error

    def _move(
        self, cursor: Cursor[DictRow], rows: Sequence[SeenRow], decide: Decide
    ) -> dict[str, TakenLease]:
        streams = self._ledger.load(cursor, by_attempt(rows))
        fences = self._ledger.draw_fences(cursor, len(rows))
        taken: dict[str, TakenLease] = {}
        moves, owner = [], sweeper_holder()
        for row, fence in zip(rows, fences, strict=True):
            recovery = streams[row.attempt_id]
            try:
                if isinstance(recovery, RecoveryJournalError):
                    raise recovery
                events = decide(row, recovery, fence)
            except RecoveryJournalError as error:
                taken[row.attempt_id] = error
                continue
            moves.append(Move(recovery, events, owner, self._limits.sweeper_ttl_s))
        for move, answer in zip(moves, self._ledger.record(cursor, moves), strict=True):
            taken[move.recovery.attempt_id] = answer
        failed = {id_: it for id_, it in taken.items() if isinstance(it, RecoveryJournalError)}
        set_aside(cursor, failed, self._limits.policy)
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
