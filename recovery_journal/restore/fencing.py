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
from recovery_journal.domain.errors import StoreBusy
from recovery_journal.domain.events import SeizeReason
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery, Stage
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import blocked, is_lock_timeout
from recovery_journal.postgres.database import Database
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.restore.differences import Difference, DifferenceKind
from recovery_journal.store.lease_row import COLUMNS, LockedLease, lock_leases, locking
from recovery_journal.store.ledger import Events, Ledger
from recovery_journal.store.move import Move, change_rows
from recovery_journal.store.set_aside import BE_BRIEF, Halving

# Waits for locked rows: none may be skipped.
LOCK_OWNED: Final = locking(f"""
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
""")

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
            found = self._fence_cohort(decision, after=after, without=without)
            fenced += found.values()
            if len(found) < self._limits.cohort_size:
                return fenced
            after = max(found)

    def _fence_cohort(
        self, decision: Decision, *, after: str, without: Sequence[str]
    ) -> dict[str, Fenced]:
        """Fence a cohort of attempts. It waits for rows, and only briefly for places in streams.
        Where another transaction holds the next place of an attempt, that attempt is fenced without
        an event; after many such waits all others are, so that none is skipped."""
        fenced: dict[str, Fenced] = {}
        tried: list[str] = []
        parts = Halving(None)
        for part in parts:
            wanted = {
                "after": after,
                "without": list(without),
                "attempt_ids": part,
                "limit": self._limits.cohort_size,
            }
            locked: list[LockedLease] = []
            try:
                with self._database.transaction() as cursor:
                    locked = lock_leases(cursor, LOCK_OWNED, wanted)
                    cursor.execute(BE_BRIEF)
                    answers = self._fence(cursor, locked, decision)
            except StoreBusy as error:
                attempt_ids = [one.row.attempt_id for one in locked]
                tried = tried or attempt_ids
                if not is_lock_timeout(error) or not attempt_ids:
                    raise
                try:
                    left_out = parts.halve(attempt_ids, error)
                except StoreBusy:
                    left = [attempt_id for attempt_id in tried if attempt_id not in fenced]
                    return fenced | {it: self._refence(it, decision) for it in left}
                if left_out is not None:
                    fenced[left_out] = self._refence(left_out, decision)
            else:
                fenced |= answers
        return fenced

    def _refence(self, attempt_id: str, decision: Decision) -> SweepResult:
        """Refuse the worker of an attempt whose loss cannot be recorded now; a sweeper records it
        as soon as possible."""
        with self._database.transaction() as cursor:
            error = blocked(cursor, attempt_id)
            for locked in self._ledger.lock(cursor, [attempt_id]):
                cursor.execute(REFENCE, _fenced(locked))
            cursor.execute(GIVE_BACK, {"attempt_id": attempt_id, "reason": decision.reason})
            self._ledger.set_aside(cursor, {attempt_id: error})
        return SweepResult(attempt_id=attempt_id, error=str(error))

    def settle(self, difference: Difference, decision: Decision) -> Fenced | None:
        """Set one lease row to what the log says, under a new fence if the log says that it is
        owned. None where no recovery is needed."""
        if difference.kind is DifferenceKind.LOG_ONLY:
            return None
        try:
            with self._database.transaction() as cursor:
                [locked] = self._ledger.lock(cursor, [difference.attempt_id])
                cursor.execute(BE_BRIEF)
                if difference.kind is DifferenceKind.LEASE_ONLY:
                    cursor.execute(CLOSE, _fenced(locked))
                    return None
                return self.fence_one(cursor, locked, decision)
        except UniqueViolation:
            error = "left as it is: its run has another open attempt; cancel one of the two"
            return SweepResult(attempt_id=difference.attempt_id, error=error)
        except StoreBusy as busy:
            if not is_lock_timeout(busy):
                raise
            return self._refence(difference.attempt_id, decision)

    def fence_one(self, cursor: Cursor[DictRow], locked: LockedLease, decision: Decision) -> Fenced:
        """Set one lease row, which the caller has locked, to what the log says."""
        return self._fence(cursor, [locked], decision)[locked.row.attempt_id]

    def _fence(
        self, cursor: Cursor[DictRow], locked: Sequence[LockedLease], decision: Decision
    ) -> dict[str, Fenced]:
        """Set lease rows to what the log says, whatever they know of it."""

        def command(recovery: Recovery, owned: LockedLease) -> Events:
            # An epoch that was never drawn must not be written to a row.
            recovery.require_newer("fence the attempt", owned.new_fence)
            return self._decide(recovery, owned, decision)

        answers = self._ledger.decide(cursor, locked, command, from_log=True)
        fenced: dict[str, Fenced] = {}
        for one in locked:
            attempt_id = one.row.attempt_id
            answer = answers[attempt_id]
            if not isinstance(answer, Recovery):
                cursor.execute(REFENCE, _fenced(one))
                fenced[attempt_id] = SweepResult(attempt_id=attempt_id, error=str(answer))
            elif answer.fence == one.new_fence:
                fenced[attempt_id] = answer
            else:  # it has no owner
                _repeat(cursor, answer)
                fenced[attempt_id] = SweepResult.of(answer)
        return fenced

    def _decide(self, recovery: Recovery, owned: LockedLease, decision: Decision) -> Events:
        if recovery.stage in RECOVERING:
            why = SeizeReason.SWEEPER_LOST
            return seize(recovery, decision, fence=owned.new_fence, why=why)
        if recovery.stage is not Stage.HELD:
            return ()
        lease = owned.row.view(seen_at=owned.seen_at, grace_s=self._limits.grace_s)
        if lease.fence != recovery.fence:  # the row is of another moment than the log
            lease = msgspec.structs.replace(lease, fence=recovery.fence, holder=recovery.holder)
        return expire(
            recovery,
            decision,
            lease=lease,
            loss=LossReason.REPORTED,
            fence=owned.new_fence,
            is_fleet_wide=True,
        )


def _fenced(locked: LockedLease) -> dict[str, Any]:
    """The values of `CLOSE` and `REFENCE`."""
    fence = locked.new_fence
    return {"attempt_id": locked.row.attempt_id, "epoch": fence.epoch, "lease_id": fence.lease_id}


def _repeat(cursor: Cursor[DictRow], recovery: Recovery) -> None:
    """Set the lease row to what the last decisive event said."""
    last = recovery.ended or recovery.quarantined or recovery.ready
    assert last is not None, f"attempt {recovery.attempt_id!r} is {recovery.stage}"
    change_rows(cursor, [(Move(recovery, (last,)), recovery)], sweeper_ttl_s=0)
