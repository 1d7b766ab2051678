"""Claiming: a worker takes recovered attempts from the dispatch-ready list (rule R8).

One transaction locks `ready` lease rows in the order of the list, passing over those that another
claimer has locked; appends `Dispatched`; grants; and takes them off the list. Exactly one wins.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.claiming.locked_leases import READY, LockedLease, granted, take
from recovery_journal.domain import holding, requeueing
from recovery_journal.domain.errors import (
    AppendBlocked,
    CheckpointTooLarge,
    CheckpointTooNew,
    CodecFailed,
    CodecMissing,
    PayloadCorrupt,
    RecoveryJournalError,
    ReducerFailed,
    ServerUnavailable,
    StoreBusy,
)
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.lease import Holder, LeaseStatus
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.domain.wording import message_of
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import appending_briefly
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor, sweeper_holder
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.read_models.tables.row_errors import translating_read_errors
from recovery_journal.recovery.replayer import POSTPONED
from recovery_journal.store.acquisition import terms_of
from recovery_journal.store.code_version_demand import CodeVersionDemand
from recovery_journal.store.lease import Lease, LeaseTerms
from recovery_journal.store.lease_row import COLUMNS, LeaseRow, by_attempt, read_leases
from recovery_journal.store.ledger import Ledger, fences_of
from recovery_journal.store.move import Move
from recovery_journal.store.set_aside import Halving, set_aside
from recovery_journal.store.writes import retry_once

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

Decide = Callable[[Recovery, LeaseRow, Cursor[DictRow]], tuple[AnyEvent, ...]]


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
        self._askers = CodeVersionDemand(database, limits.policy)

    def take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        """Win up to `limit` attempts. Idempotent: after a lost reply, noticed here or by a caller
        that retries with its own dispatch id, it finds the attempts that it won and dispatches none
        twice."""
        if wanted.code_versions is not None:
            self._askers.note(wanted.kinds, wanted.code_versions)
        if not wanted.is_again:
            try:
                return self._take(wanted)
            except ServerUnavailable:
                pass
        return retry_once(lambda: self._find_or_take(wanted))

    def quarantine_diverged(self, lease: Lease, problem: PayloadCorrupt) -> None:
        """Quarantine a claimed attempt before any user code runs: what is stored, or what it folds
        to, differs from what its recovery recorded."""
        decision = Decision(event_id=lease.fence.lease_id, by=actor("worker", lease.worker_id))

        def decide(
            recovery: Recovery, _row: LeaseRow, _cursor: Cursor[DictRow]
        ) -> tuple[AnyEvent, ...]:
            return holding.diverge(
                recovery,
                decision,
                explanation=problem.reason_for_log,
                found=problem.found,
                expected=problem.needed,
            )

        retry_once(lambda: self._decide(lease, decide))

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

        def decide(
            recovery: Recovery, row: LeaseRow, cursor: Cursor[DictRow]
        ) -> tuple[AnyEvent, ...]:
            now = self._ledger.now(cursor)
            lost: dict[str, Any] = {
                "lease": row.view(seen_at=now, grace_s=self._limits.grace_s),
                "fence": self._ledger.draw_fences(cursor, 1)[0],
                "policy": self._limits.policy,
                "now": now,
            }
            if isinstance(problem, CheckpointTooNew):
                return requeueing.leave_to_newer(recovery, decision, message=message, **lost)
            if isinstance(problem, CodecMissing):
                return requeueing.leave_to_decoder(recovery, decision, message=message, **lost)
            return requeueing.requeue(
                recovery,
                decision,
                step,
                error_class=error_class,
                message=message,
                is_tried=error_class != POSTPONED,
                **lost,
            )

        retry_once(lambda: self._decide(lease, decide))

    def _decide(self, lease: Lease, decide: Decide) -> None:
        """Record a decision on a claimed attempt. An attempt that was taken back meanwhile is left
        alone: its new owner finds the same problem, and the other claims are kept. They are kept
        also where nothing can be appended to the attempt now: its lease runs out."""
        with self._database.transaction() as cursor:
            row = self._ledger.lock(cursor, [lease.attempt_id])[lease.attempt_id]
            if row.fence != lease.fence or row.status != LeaseStatus.HELD:
                return
            recovery = self._ledger.load(cursor, {lease.attempt_id: row})[lease.attempt_id]
            if isinstance(recovery, RecoveryJournalError):
                set_aside(cursor, {lease.attempt_id: recovery}, self._limits.policy)
                return
            events = decide(recovery, row, cursor)
            move = Move(recovery, events, sweeper_holder(), self._limits.sweeper_ttl_s)
            with suppress(AppendBlocked), appending_briefly(cursor, lease.attempt_id):
                self._ledger.record_all(cursor, [move])

    def _find_or_take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.cursor() as cursor, translating_read_errors(DISPATCH_READY):
            parameters = _parameters(wanted) | _claim(wanted)
            look = cursor.execute(FIND_OWN_CLAIM, parameters).fetchone()
        assert look is not None
        if look["has_won"] and (found := self._find(wanted)):
            return found
        return self._take(wanted) if look["has_ready"] else []

    def _find(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.transaction() as cursor:
            cursor.execute(KEEP, _claim(wanted))
            self._declare(cursor, wanted)
            rows = self._won(cursor, wanted)
            found = self._ledger.load_from_log(cursor, list(rows))
            return [
                (terms_of(rows[attempt_id]), recovery)
                for attempt_id, recovery in found.items()
                if isinstance(recovery, Recovery)
            ]

    def _take(self, wanted: ClaimRequest) -> list[tuple[LeaseTerms, Recovery]]:
        """Repeat until something is won or nothing more is ready: a turn that only sets attempts
        aside is no answer."""
        won: list[tuple[LeaseTerms, Recovery]] = []
        for _ in range(TURN_LIMIT):
            tried: list[str] = []
            try:
                won += self._take_turn(wanted, tried)
            except StoreBusy as error:
                if not tried:
                    raise
                won += self._take_by_halves(wanted, tried, error)
            if won or not tried:
                break
        return won

    def _take_by_halves(
        self, wanted: ClaimRequest, attempt_ids: list[str], error: StoreBusy
    ) -> list[tuple[LeaseTerms, Recovery]]:
        """Another transaction has locked one of these. The first attempts won are the answer: they
        must not wait for others."""
        won: list[tuple[LeaseTerms, Recovery]] = []

        def take_some(some: Sequence[str]) -> dict[str, None]:
            if not won:
                won.extend(self._take_turn(wanted, [], some))
            return {}

        def give_up(attempt_id: str, error: StoreBusy) -> None:
            with self._database.transaction() as cursor:
                set_aside(cursor, {attempt_id: error}, self._limits.policy)

        Halving(take_some, give_up).halve(attempt_ids, error)
        return won

    def _take_turn(
        self, wanted: ClaimRequest, tried: list[str], attempt_ids: Sequence[str] | None = None
    ) -> list[tuple[LeaseTerms, Recovery]]:
        """One transaction; `tried` then names the attempts that were locked, also where it
        fails."""
        with self._database.transaction() as cursor:
            with translating_read_errors(DISPATCH_READY):
                bound = {"limit_bytes": self._limits.claim_bytes}
                found = take(cursor, _parameters(wanted, attempt_ids) | bound)
            tried += [taken.row.attempt_id for taken in found]
            if not found:
                return []
            taken = {taken.row.attempt_id: taken for taken in found}
            answers = self._ledger.record(cursor, self._dispatching(cursor, found, wanted))
            self._declare(cursor, wanted)
            return [
                (
                    granted(taken[answer.attempt_id], answer.fence, wanted.holder, wanted.ttl_s),
                    answer,
                )
                for answer in answers
                if isinstance(answer, Recovery)
            ]

    def _dispatching(
        self, cursor: Cursor[DictRow], found: Sequence[LockedLease], wanted: ClaimRequest
    ) -> list[Move]:
        decision = Decision(
            event_id=wanted.dispatch_id, by=actor("worker", wanted.holder.worker_id)
        )
        streams = self._ledger.load(cursor, by_attempt([taken.row for taken in found]))
        moves, problems = [], {}
        fences = fences_of([taken.new_epoch for taken in found])
        for (row, _, _), fence in zip(found, fences, strict=True):
            recovery = streams[row.attempt_id]
            try:
                if isinstance(recovery, RecoveryJournalError):
                    raise recovery
                events = holding.dispatch(
                    recovery,
                    decision,
                    holder=wanted.holder,
                    fence=fence,
                    ttl_s=wanted.ttl_s,
                    dispatch_id=wanted.dispatch_id,
                )
            except RecoveryJournalError as error:
                # It must not stay at the head of the list for ever.
                problems[row.attempt_id] = error
                continue
            moves.append(Move(recovery, events, wanted.holder, lasts_s=wanted.ttl_s))
        set_aside(cursor, problems, self._limits.policy)
        return moves

    def _won(self, cursor: Cursor[DictRow], wanted: ClaimRequest) -> dict[str, LeaseRow]:
        """The lease rows that this claim holds."""
        return by_attempt(read_leases(cursor, WON, _claim(wanted)))

    def _declare(self, cursor: Cursor[DictRow], wanted: ClaimRequest) -> None:
        """Declare which session lock is the claimer's, in all leases that this claim holds."""
        if wanted.session_lock is not None:
            cursor.execute(DECLARE, {**_claim(wanted), "session_lock": wanted.session_lock})


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
