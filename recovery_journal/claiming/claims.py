"""Claiming: a worker takes recovered attempts from the dispatch-ready list (rule R8).

One transaction locks `ready` lease rows in the order of the list, passing over those that another
claimer has locked; appends `Dispatched`; grants; and takes them off the list. Exactly one wins.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import accumulate
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import dispatch
from recovery_journal.domain.commands.quarantine import quarantine_diverged
from recovery_journal.domain.commands.requeue import requeue, requeue_for_codec, requeue_for_reader
from recovery_journal.domain.errors import (
    AppendBlocked,
    CheckpointTooLarge,
    CheckpointTooNew,
    CodecFailed,
    CodecMissing,
    PayloadCorrupt,
    ReducerFailed,
    ServerUnavailable,
    StoreBusy,
)
from recovery_journal.domain.lease import Holder
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.domain.wording import message_of
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import appending_briefly
from recovery_journal.log.streams import decidable
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.identity import actor
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.read_models.tables.row_errors import translating_read_errors
from recovery_journal.recovery.replayer import POSTPONED
from recovery_journal.store.acquisition import terms_of
from recovery_journal.store.code_version_demand import CodeVersionDemand
from recovery_journal.store.lease import Lease, LeaseTerms
from recovery_journal.store.lease_row import (
    COLUMNS,
    LeaseRow,
    LockedLease,
    lock_leases,
    locking,
    read_leases,
)
from recovery_journal.store.ledger import Events, Ledger
from recovery_journal.store.set_aside import Halving
from recovery_journal.store.tips import read_sizes
from recovery_journal.store.writes import retry

READY: Final = """
projection_dispatch_ready AS listed
JOIN leases USING (attempt_id)
WHERE listed.left_position IS NULL
    AND leases.status = 'ready'
    AND (listed.not_before IS NULL OR listed.not_before <= clock_timestamp())
    AND (leases.retry_at IS NULL OR leases.retry_at <= clock_timestamp())
    AND (leases.deadline_at IS NULL OR leases.deadline_at > clock_timestamp())
    AND (%(attempt_ids)s::text[] IS NULL OR listed.attempt_id = ANY(%(attempt_ids)s))
    AND (%(kinds)s::text[] IS NULL OR listed.kind = ANY(%(kinds)s))
    AND (%(tenants)s::text[] IS NULL OR listed.tenant = ANY(%(tenants)s))
    AND (
        %(code_versions)s::text[] IS NULL
        OR listed.code_version = ''
        OR listed.code_version = ANY(%(code_versions)s)
    )
"""

# One attempt's events must not delay the others.
LOCK_READY: Final = locking(
    f"""
SELECT {", ".join(f"leases.{column}" for column in LeaseRow.__struct_fields__)}
FROM {READY}
ORDER BY listed.priority DESC, listed.ready_at, listed.attempt_id
LIMIT %(limit)s
FOR NO KEY UPDATE OF leases SKIP LOCKED
""",
    is_brief=True,
)

THIS_CLAIM = "dispatch_id = %(dispatch_id)s AND status = 'held' AND worker_id = %(worker_id)s"
"""The rows that this claim has won and still holds."""

# In the claim's own transaction, so that the death of a claimer during its loading is noticed as
# well.
DECLARE = f"""
UPDATE leases
SET session_lock = %(session_lock)s
WHERE {THIS_CLAIM}
"""

# Leases that are found again were granted some time ago, so renew them.
KEEP = f"""
UPDATE leases
SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => ttl_s)
WHERE {THIS_CLAIM}
"""

# After a lost reply: the rows that this claim has already won.
WON = f"""
SELECT {COLUMNS}
FROM leases
WHERE {THIS_CLAIM}
ORDER BY attempt_id
"""

# The only query of a claim on an idle fleet.
FIND_OWN_CLAIM = f"""
SELECT EXISTS (
        SELECT
        FROM leases
        WHERE {THIS_CLAIM}
    ) AS has_won,
    EXISTS (SELECT FROM {READY}) AS has_ready
"""


TURN_LIMIT: Final = 100
"""How many turns that only set attempts aside a claim takes before it returns nothing."""

Unusable = CheckpointTooNew | CheckpointTooLarge | CodecMissing | CodecFailed | ReducerFailed
"""Why this claimer requeues a claimed attempt, which another claimer may be able to load."""


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """A worker's request for attempts; validated. A filter is None for no filter."""

    holder: Holder
    kinds: list[str] | None
    tenants: list[str] | None
    code_versions: list[str] | None
    limit: int
    ttl_s: float
    dispatch_id: str
    is_again: bool
    session_lock: int | None = None


class Claims:
    """Grants recovered attempts to the workers that claim them."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        limits: Limits,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits
        self._demand = CodeVersionDemand(database, limits.policy)

    def take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        """Win up to `limit` attempts. Idempotent: after a lost reply, noticed here or by a caller
        that retries with its own dispatch id, it finds the attempts that it won and dispatches none
        twice."""
        if wanted.code_versions is not None:
            self._demand.note(wanted.kinds, wanted.code_versions)
        if not wanted.is_again:
            try:
                return self._take(wanted)
            except ServerUnavailable:
                pass
        return retry(lambda: self._find_or_take(wanted))

    def quarantine_diverged(self, lease: Lease, problem: PayloadCorrupt) -> None:
        """Quarantine a claimed attempt before any user code runs: what is stored, or what it folds
        to, differs from what its recovery recorded."""
        decision = Decision(event_id=lease.fence.lease_id, by=actor("worker", lease.worker_id))

        def command(recovery: Recovery, _locked: LockedLease) -> Events:
            return quarantine_diverged(
                recovery,
                decision,
                explanation=problem.reason_for_log,
                found=problem.found,
                expected=problem.needed,
            )

        retry(lambda: self._decide(lease, command))

    def requeue(self, lease: Lease, problem: Unusable) -> None:
        """Requeue a claimed attempt that this worker cannot load. A sweeper retries it after a
        wait: another machine, or this one at another time, may be able to load it."""
        message = message_of(problem)
        step, error_class = RecoveryStep.CHECKPOINT_RELOAD, type(problem).__name__
        if isinstance(problem, ReducerFailed):
            step, error_class = RecoveryStep.REPLAY, problem.error_class
        decision = Decision(
            event_id=uuid4().hex,
            by=actor("worker", lease.worker_id),
            reason=problem.reason_for_log,
        )

        def command(recovery: Recovery, locked: LockedLease) -> Events:
            lost: dict[str, Any] = {
                "lease": locked.row.view(seen_at=locked.seen_at, grace_s=self._limits.grace_s),
                "fence": locked.new_fence,
                "policy": self._limits.policy,
                "now": locked.seen_at,
            }
            if isinstance(problem, CheckpointTooNew):
                return requeue_for_reader(recovery, decision, message=message, **lost)
            if isinstance(problem, CodecMissing):
                return requeue_for_codec(recovery, decision, message=message, **lost)
            return requeue(
                recovery,
                decision,
                step,
                error_class=error_class,
                message=message,
                is_tried=error_class != POSTPONED,
                **lost,
            )

        retry(lambda: self._decide(lease, command))

    def _decide(self, lease: Lease, command: Callable[[Recovery, LockedLease], Events]) -> None:
        """Record a decision on a claimed attempt. An attempt that was taken back meanwhile is left
        alone: its new owner finds the same problem, and the other claims are kept. They are kept
        also where nothing can be appended to the attempt now: its lease runs out."""
        with self._database.transaction() as cursor:
            locked = self._ledger.lock_one(cursor, lease.attempt_id)
            if locked is None or not locked.row.is_held_under(lease.fence):
                return
            with suppress(AppendBlocked), appending_briefly(cursor, lease.attempt_id):
                self._ledger.decide(cursor, [locked], command)

    def _find_or_take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.cursor() as cursor, translating_read_errors(DISPATCH_READY):
            parameters = _parameters(wanted) | _claim(wanted)
            found_now = one(cursor.execute(FIND_OWN_CLAIM, parameters))
        if found_now["has_won"] and (found := self._find(wanted)):
            return found
        return self._take(wanted) if found_now["has_ready"] else []

    def _find(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.transaction() as cursor:
            cursor.execute(KEEP, _claim(wanted))
            self._declare(cursor, wanted)
            rows = read_leases(cursor, WON, _claim(wanted))
            found = decidable(cursor, list(rows))
            return [
                (terms_of(rows[attempt_id]), recovery)
                for attempt_id, recovery in found.items()
                if isinstance(recovery, Recovery)
            ]

    def _take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        """Repeat until something is won or nothing more is ready: a turn that only sets attempts
        aside is no answer."""
        for _ in range(TURN_LIMIT):
            won = self._take_turn(wanted)
            if won is None:
                break
            if won:
                return won
        return []

    def _take_turn(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]] | None:
        """The attempts won; None where none was ready. Where another transaction has locked
        one of them, the first attempts won are the answer: they must not wait for others."""
        decision = Decision(
            event_id=wanted.dispatch_id, by=actor("worker", wanted.holder.worker_id)
        )

        def command(recovery: Recovery, ready: LockedLease) -> Events:
            return dispatch(
                recovery,
                decision,
                holder=wanted.holder,
                fence=ready.new_fence,
                ttl_s=wanted.ttl_s,
                dispatch_id=wanted.dispatch_id,
            )

        has_found = False
        parts = Halving(None)
        for part in parts:
            locked: list[LockedLease] = []
            try:
                with self._database.transaction() as cursor:
                    with translating_read_errors(DISPATCH_READY):
                        locked = self._lock_ready(cursor, wanted, part)
                    if not locked:
                        continue
                    has_found = True
                    answers = self._ledger.decide(cursor, locked, command)
                    self._declare(cursor, wanted)
            except StoreBusy as error:
                left_out = parts.halve([one.row.attempt_id for one in locked], error)
                if left_out is not None:
                    with self._database.transaction() as cursor:
                        self._ledger.set_aside(cursor, {left_out: error})
            else:
                won = [(one, answers[one.row.attempt_id]) for one in locked]
                return [(_granted(one, wanted), it) for one, it in won if isinstance(it, Recovery)]
        return [] if has_found else None

    def _lock_ready(
        self, cursor: Cursor[DictRow], wanted: ClaimRequest, attempt_ids: Sequence[str] | None
    ) -> list[LockedLease]:
        """Lock the ready leases, of these attempts or of all, in the order of the list: as many as
        fit into `claim_bytes`, and always the first one. The others are free again once the claim
        has committed."""
        found = lock_leases(cursor, LOCK_READY, _parameters(wanted, attempt_ids))
        if len(found) < 2:
            return found
        sizes = read_sizes(cursor, [one.row.run_id for one in found])
        so_far = accumulate(sizes.get(one.row.run_id, 0) for one in found)
        fitting = sum(size <= self._limits.claim_bytes for size in so_far)
        return found[: max(fitting, 1)]

    def _declare(self, cursor: Cursor[DictRow], wanted: ClaimRequest) -> None:
        """Declare which session lock is the claimer's, in all leases that this claim holds."""
        if wanted.session_lock is not None:
            cursor.execute(DECLARE, {**_claim(wanted), "session_lock": wanted.session_lock})


def _granted(ready: LockedLease, wanted: ClaimRequest) -> LeaseTerms:
    """The terms of a lease that was just granted. The row's lease ends a moment after these terms
    say, because the row takes the time of its write."""
    row = ready.row
    return LeaseTerms(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        worker_id=wanted.holder.worker_id,
        kind=row.kind,
        code_version=row.code_version,
        fence=ready.new_fence,
        ttl_s=wanted.ttl_s,
        expires_at=ready.seen_at + timedelta(seconds=wanted.ttl_s),
        progress=row.progress,
    )


def _claim(wanted: ClaimRequest) -> dict[str, Any]:
    """The parameters that identify this claim."""
    return {"dispatch_id": wanted.dispatch_id, "worker_id": wanted.holder.worker_id}


def _parameters(wanted: ClaimRequest, attempt_ids: Sequence[str] | None = None) -> dict[str, Any]:
    """The parameters that select what to take, of these attempts or of all."""
    return {
        "attempt_ids": None if attempt_ids is None else list(attempt_ids),
        "kinds": wanted.kinds,
        "tenants": wanted.tenants,
        "code_versions": wanted.code_versions,
        "limit": wanted.limit,
    }
