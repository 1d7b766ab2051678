"""Fence every held lease after a restore, so that workers of the discarded timeline are refused.

A worker of the discarded timeline may hold the very fence that its row shows, while what it has
recorded since is lost. So each held attempt is declared lost, in the name of the person who decided
it, and is recovered from what is stored; that does not count as a crash of its run.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import seize
from recovery_journal.domain.commands.pipeline import expire
from recovery_journal.domain.errors import RecoveryJournalError, StoreBusy, UnknownAttempt
from recovery_journal.domain.events import AnyEvent, SeizeReason
from recovery_journal.domain.lease import Fence, LossReason
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery, Stage
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import blocked, is_lock_timeout
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import sweeper_holder
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.restore.differences import Difference, DifferenceKind
from recovery_journal.store.lease_row import COLUMNS, LeaseRow, read_leases
from recovery_journal.store.ledger import Ledger
from recovery_journal.store.move import Move, change_rows
from recovery_journal.store.set_aside import BE_BRIEF, Halving, set_aside

# Waits for locked rows: none may be skipped.
OWNED: Final = f"""
SELECT {COLUMNS}
FROM leases
WHERE is_watched
    AND status IN ('held', 'recovering')
    AND attempt_id > %(after)s
    AND attempt_id <> ALL(%(without)s::text[])
    AND (%(attempt_ids)s::text[] IS NULL OR attempt_id = ANY(%(attempt_ids)s))
ORDER BY attempt_id
LIMIT %(limit)s
FOR NO KEY UPDATE
"""

# No event can be appended for it, because its stream has no beginning.
CLOSE: Final = """
UPDATE leases
SET status = 'cancelled',
    epoch = %(epoch)s,
    lease_id = %(lease_id)s,
    expires_at = NULL,
    retry_at = NULL,
    ended_at = coalesce(ended_at, clock_timestamp())
WHERE attempt_id = %(attempt_id)s
"""

# A stream that cannot be read takes no event, and neither does one whose next place an open
# transaction has taken; its worker is refused all the same.
REFENCE: Final = """
UPDATE leases
SET epoch = %(epoch)s, lease_id = %(lease_id)s
WHERE attempt_id = %(attempt_id)s
"""

# For the next sweep to record, once the open transaction that blocks has ended. Recorded as a
# hand-back, because no other loss of a single lease is without blame for its run (R13).
GIVE_BACK: Final = """
UPDATE leases
SET loss = 'handed_back', loss_reason = %(reason)s
WHERE attempt_id = %(attempt_id)s
    AND status = 'held'
"""

Fenced = Recovery | SweepResult
"""An attempt to recover, or the reason why it stays as it is."""


class Fencing:
    """Fences held leases, in the transactions of one decision."""

    def __init__(self, database: Database, ledger: Ledger, limits: Limits) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits

    def fence_owned(self, decision: Decision, *, without: Sequence[str]) -> list[Fenced]:
        """Fence every attempt that a worker holds or a sweeper recovers, except those in
        `without`."""
        fenced: list[Fenced] = []
        after = ""
        while True:
            tried: list[str] = []
            try:
                fenced += self._fence_found(decision, tried, after=after, without=without).values()
            except StoreBusy as error:
                if not tried:
                    raise
                fenced += self._fence_by_halves(decision, tried, error).values()
            if len(tried) < self._limits.cohort_size:
                return fenced
            after = tried[-1]

    def _fence_by_halves(
        self, decision: Decision, attempt_ids: Sequence[str], error: StoreBusy
    ) -> dict[str, Fenced]:
        """Another transaction holds what the next event of one of these needs. After this many
        waits the others are fenced without an event, so that none is skipped."""
        fenced: dict[str, Fenced] = {}

        def fence_some(some: Sequence[str]) -> dict[str, Fenced]:
            answers = self._fence_found(decision, [], attempt_ids=list(some))
            fenced.update(answers)
            return answers

        def refence(attempt_id: str, _error: StoreBusy) -> Fenced:
            fenced[attempt_id] = self._refence(attempt_id, decision)
            return fenced[attempt_id]

        try:
            return Halving(fence_some, refence).halve(attempt_ids, error)
        except StoreBusy as busy:
            if not is_lock_timeout(busy):
                raise
            return fenced | {
                id_: self._refence(id_, decision) for id_ in attempt_ids if id_ not in fenced
            }

    def _fence_found(
        self,
        decision: Decision,
        tried: list[str],
        *,
        after: str = "",
        without: Sequence[str] = (),
        attempt_ids: Sequence[str] | None = None,
    ) -> dict[str, Fenced]:
        """One transaction; `tried` then names the attempts that were locked, also where it fails.
        It waits for rows, and only briefly for places in streams."""
        wanted = {
            "after": after,
            "without": list(without),
            "attempt_ids": attempt_ids,
            "limit": self._limits.cohort_size,
        }
        with self._database.transaction() as cursor:
            rows = read_leases(cursor, OWNED, wanted)
            tried += [row.attempt_id for row in rows]
            cursor.execute(BE_BRIEF)
            fenced = self._fence(cursor, rows, decision)
        return {one.attempt_id: one for one in fenced}

    def _refence(self, attempt_id: str, decision: Decision) -> SweepResult:
        """Refuse the worker of an attempt whose loss cannot be recorded now; a sweeper records it
        as soon as possible."""
        with self._database.transaction() as cursor:
            error = blocked(cursor, attempt_id)
            self._ledger.lock(cursor, [attempt_id])
            fence = self._ledger.draw_fences(cursor, 1)[0]
            cursor.execute(REFENCE, _fenced(attempt_id, fence))
            cursor.execute(GIVE_BACK, {"attempt_id": attempt_id, "reason": decision.reason})
            set_aside(cursor, {attempt_id: error}, self._limits.policy)
        return SweepResult(attempt_id=attempt_id, error=str(error))

    def settle(self, difference: Difference, decision: Decision) -> Fenced | None:
        """Set one lease row to what the log says, under a new fence if the log says that it is
        owned. None where no recovery is needed."""
        if difference.kind is DifferenceKind.LOG_ONLY:
            return None
        try:
            with self._database.transaction() as cursor:
                rows = list(self._ledger.lock(cursor, [difference.attempt_id]).values())
                cursor.execute(BE_BRIEF)
                if difference.kind is DifferenceKind.LEASE_ONLY:
                    fence = self._ledger.draw_fences(cursor, 1)[0]
                    cursor.execute(CLOSE, _fenced(difference.attempt_id, fence))
                    return None
                return self._fence(cursor, rows, decision)[0]
        except UniqueViolation:
            error = "left as it is: its run has another open attempt; cancel one of the two"
            return SweepResult(attempt_id=difference.attempt_id, error=error)
        except StoreBusy as busy:
            if not is_lock_timeout(busy):
                raise
            return self._refence(difference.attempt_id, decision)

    def fence_one(self, cursor: Cursor[DictRow], row: LeaseRow, decision: Decision) -> Fenced:
        """Set one lease row, which the caller has locked, to what the log says."""
        return self._fence(cursor, [row], decision)[0]

    def _fence(
        self, cursor: Cursor[DictRow], rows: Sequence[LeaseRow], decision: Decision
    ) -> list[Fenced]:
        streams = self._ledger.load_from_log(cursor, [row.attempt_id for row in rows])
        fences = self._ledger.draw_fences(cursor, len(rows))
        fenced: list[Fenced] = []
        moves: list[Move] = []
        problems: dict[str, RecoveryJournalError] = {}
        for row, fence in zip(rows, fences, strict=True):
            found = streams.get(row.attempt_id) or UnknownAttempt(row.attempt_id)
            try:
                if isinstance(found, RecoveryJournalError):
                    raise found
                # An epoch that was never drawn must not be written to a row.
                found.require_newer("fence the attempt", fence)
                events = self._decide(cursor, row, found, fence, decision)
            except RecoveryJournalError as error:
                cursor.execute(REFENCE, _fenced(row.attempt_id, fence))
                problems[row.attempt_id] = error
                fenced.append(SweepResult(attempt_id=row.attempt_id, error=str(error)))
                continue
            if events:
                owner, lasts_s = sweeper_holder(), self._limits.sweeper_ttl_s
                moves.append(Move(found, events, owner, lasts_s=lasts_s))
            else:
                _repeat(cursor, found)
                fenced.append(SweepResult.of(found))
        set_aside(cursor, problems, self._limits.policy)
        for move, answer in zip(moves, self._ledger.record(cursor, moves), strict=True):
            left = SweepResult(attempt_id=move.recovery.attempt_id, error=str(answer))
            fenced.append(answer if isinstance(answer, Recovery) else left)
        return fenced

    def _decide(
        self,
        cursor: Cursor[DictRow],
        row: LeaseRow,
        recovery: Recovery,
        fence: Fence,
        decision: Decision,
    ) -> tuple[AnyEvent, ...]:
        if recovery.stage in RECOVERING:
            return seize(recovery, decision, fence=fence, why=SeizeReason.SWEEPER_LOST)
        if recovery.stage is not Stage.HELD:
            return ()
        lease = row.view(seen_at=self._ledger.now(cursor), grace_s=self._limits.grace_s)
        if lease.fence != recovery.fence:  # the row is of another moment than the log
            lease = msgspec.structs.replace(lease, fence=recovery.fence, holder=recovery.holder)
        return expire(
            recovery,
            decision,
            lease=lease,
            loss=LossReason.REPORTED,
            fence=fence,
            is_fleet_wide=True,
        )


def _fenced(attempt_id: str, fence: Fence) -> dict[str, Any]:
    """The values of `CLOSE` and `REFENCE`."""
    return {"attempt_id": attempt_id, "epoch": fence.epoch, "lease_id": fence.lease_id}


def _repeat(cursor: Cursor[DictRow], recovery: Recovery) -> None:
    """Set the lease row to what the last decisive event said."""
    last = recovery.ended or recovery.quarantined or recovery.ready
    assert last is not None, f"attempt {recovery.attempt_id!r} is {recovery.stage}"
    change_rows(cursor, [(Move(recovery, (last,), recovery.holder, lasts_s=0), recovery)])
