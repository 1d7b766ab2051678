"""The acts of a person, or of a host on a person's behalf: always with a name and a reason."""

from collections.abc import Callable
from uuid import uuid4

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.commands.operator import cancel, lift, resume
from recovery_journal.domain.errors import (
    InvalidInput,
    PayloadCorrupt,
    ServerUnavailable,
    UnknownAttempt,
)
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Decision, Recovery
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import appending_briefly
from recovery_journal.log.streams import has_decision
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor
from recovery_journal.store.lease_row import LockedLease
from recovery_journal.store.ledger import Events, Ledger
from recovery_journal.store.runs import RunStore

INCARNATIONS = """
SELECT DISTINCT boot_id || ':' || pid || ':' || process_started AS incarnation
FROM leases
WHERE is_watched AND worker_id = %(worker_id)s AND status = 'held'
ORDER BY incarnation
"""

REPORT = """
UPDATE leases
SET loss = %(loss)s, loss_reason = %(reason)s
WHERE is_watched
    AND worker_id = %(worker_id)s
    AND status = 'held'
    AND boot_id || ':' || pid || ':' || process_started = %(incarnation)s
RETURNING attempt_id
"""

DISPENSABLE = (ProblemKind.CORRUPT, ProblemKind.TOO_NEW, ProblemKind.TOO_LARGE)
"""A checkpoint with such a problem may be set aside."""


class Interventions:
    """Acts on single attempts, each one transaction under the lease row's lock."""

    def __init__(self, database: Database, ledger: Ledger, runs: RunStore, limits: Limits) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._limits = limits

    def resume(self, attempt_id: str, *, by: str, reason: str) -> Recovery:
        """Let a waiting attempt proceed; this process then owns it for the pipeline."""
        decision = _decision(by, reason)
        return self._act(
            attempt_id,
            decision,
            lambda it, locked: resume(it, decision, locked.new_fence),
        )

    def cancel(self, attempt_id: str, *, by: str, reason: str) -> Recovery:
        """End an attempt in whatever stage it is; its worker is refused from now on."""
        decision = _decision(by, reason)
        return self._act(
            attempt_id,
            decision,
            lambda it, _locked: cancel(it, decision),
        )

    def lift(self, attempt_id: str, option: LiftOption, *, by: str, reason: str) -> Recovery:
        """Let a quarantined attempt proceed by the option that the person chose."""
        decision = _decision(by, reason)

        def then(cursor: Cursor[DictRow], recovery: Recovery) -> None:
            self._prepare(cursor, recovery, option)

        return self._act(
            attempt_id,
            decision,
            lambda it, locked: lift(it, decision, option, locked.new_fence),
            then,
        )

    def report_lost(self, worker_id: str, incarnation: str | None, reason: str) -> list[str]:
        """Mark the leases of one life of a worker as lost; return their attempts.

        Without an incarnation, the worker's held leases must all belong to one life.
        """
        if incarnation is None:
            incarnation = self._only_incarnation(worker_id)
        lost = {
            "worker_id": worker_id,
            "incarnation": incarnation,
            "loss": LossReason.REPORTED.value,
            "reason": reason,
        }
        with self._database.cursor() as cursor:
            return [row["attempt_id"] for row in cursor.execute(REPORT, lost).fetchall()]

    def _act(
        self,
        attempt_id: str,
        decision: Decision,
        command: Callable[[Recovery, LockedLease], Events],
        then: Callable[[Cursor[DictRow], Recovery], None] = lambda _cursor, _recovery: None,
    ) -> Recovery:
        def once(*, is_again: bool = False) -> Recovery:
            with self._database.transaction() as cursor:
                locked = self._ledger.lock_one(cursor, attempt_id)
                if locked is None:
                    raise UnknownAttempt(attempt_id)
                if is_again and has_decision(cursor, attempt_id, decision.event_id):
                    return self._ledger.inspect(cursor, attempt_id)
                with appending_briefly(cursor, attempt_id):
                    after = self._ledger.decide_one(cursor, locked, command)
                then(cursor, after)
                return after

        try:
            return once()
        except ServerUnavailable:
            return once(is_again=True)

    def _prepare(self, cursor: Cursor[DictRow], recovery: Recovery, option: LiftOption) -> None:
        """Make the store show the tip that the person chose."""
        if option is LiftOption.PARENT:
            self._runs.set_aside(cursor, recovery.run_id)
        if option is LiftOption.RESTART:
            self._restart(cursor, recovery)

    def _restart(self, cursor: Cursor[DictRow], recovery: Recovery) -> None:
        tip: Checkpoint | CheckpointProblem = self._runs.tips([recovery.run_id], cursor)[0]
        while isinstance(tip, CheckpointProblem) and tip.kind in DISPENSABLE:
            # Starting over needs no state, so skip a damaged checkpoint and read the chain behind
            # it.
            self._runs.set_aside(cursor, recovery.run_id)
            tip = self._runs.tips([recovery.run_id], cursor)[0]
        if isinstance(tip, CheckpointProblem):
            raise PayloadCorrupt(f"run {recovery.run_id!r}", found=tip.message, needed="its row")
        code_version, epoch = recovery.code_version, recovery.fence.epoch
        started = self._runs.restart_here(cursor, tip, code_version=code_version, epoch=epoch)
        self._runs.realign(cursor, recovery.attempt_id, started)

    def _only_incarnation(self, worker_id: str) -> str:
        with self._database.cursor() as cursor:
            rows = cursor.execute(INCARNATIONS, {"worker_id": worker_id}).fetchall()
        found = [row["incarnation"] for row in rows]
        if len(found) == 1:
            return str(found[0])
        raise InvalidInput(
            f"the loss of worker {worker_id!r} without an incarnation",
            found=f"{len(found)} lives of it holding leases" + "".join(f", {one}" for one in found),
            needed="exactly one",
            do="name the incarnation that died"
            if found
            else "check the worker's id; if it was reported before, there is nothing left to do",
        )


def _decision(by: str, reason: str) -> Decision:
    return Decision(event_id=uuid4().hex, by=actor("person", by), reason=reason)
