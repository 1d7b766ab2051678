"""How a worker ends its lease: completed, failed, waiting for a person, or handed back."""

from typing import TypeGuard

from recovery_journal.domain.commands.lease import confirm, end
from recovery_journal.domain.commands.pipeline import expire
from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.events import Ending, LeaseEnded, WriteKind
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Decision, Recovery, Stage, fold
from recovery_journal.limits import Limits
from recovery_journal.log.streams import decidable
from recovery_journal.postgres.database import Database
from recovery_journal.store.lease_row import LockedLease, read_lease
from recovery_journal.store.ledger import Events, Ledger
from recovery_journal.store.writes import Held, refusal, retry, worker_decision
from recovery_journal.values.payload import Payload

KEEP_RESULT = """
UPDATE leases
SET result = %(result)s, result_digest = %(result_digest)s
WHERE attempt_id = %(attempt_id)s
"""


WRITE_OF_ENDING = {
    Ending.COMPLETED: WriteKind.COMPLETION,
    Ending.FAILED: WriteKind.FAILURE,
    Ending.WAITING: WriteKind.WAIT,
}


class LeaseEndings:
    """The last writes under a fence. A write whose fence is void raises `LeaseLost`."""

    def __init__(self, database: Database, ledger: Ledger, limits: Limits) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits

    def end(
        self,
        held: Held,
        ending: Ending,
        *,
        result: Payload | None = None,
        error_class: str = "",
        message: str = "",
        reason: str = "",
        ordinal: int = 0,
    ) -> None:
        """End the lease. Idempotent under the same fence with the same result.

        Raises `StreamUnusable` where the stream holds what the lease row does not know of, such as
        an end that something else recorded: the result is not recorded then.
        """
        decision = worker_decision(held, reason)
        write = WRITE_OF_ENDING[ending]

        def command(recovery: Recovery, _locked: LockedLease) -> Events:
            confirmed: Events = ()
            if ending is Ending.COMPLETED and recovery.stage is Stage.HELD:
                confirmed = confirm(recovery, decision, write, ordinal)
            return confirmed + end(
                fold(recovery, confirmed),
                decision,
                ending,
                result_digest=result.digest if result else None,
                error_class=error_class,
                message=message,
            )

        def once() -> bool:
            with self._database.transaction() as cursor:
                locked = self._ledger.lock_one(cursor, held.attempt_id)
                if locked is None or locked.row.fence != held.fence:
                    return False
                try:
                    after = self._ledger.decide_one(cursor, locked, command)
                except WrongStage:  # it was cancelled, or ended otherwise, under this fence
                    return False
                if after.version > locked.row.version and result is not None:
                    kept = {"result": result.encoded, "result_digest": result.digest}
                    cursor.execute(KEEP_RESULT, {**held.parameters, **kept})
            return True

        if not retry(once):
            raise refusal(self._database, self._ledger, held, write)

    def give_up(self, held: Held, loss: LossReason, reason: str) -> Recovery:
        """Declare the worker's own lease lost: it is fenced at once and owned by this process's
        sweeper. Return the attempt, for the pipeline to continue with."""
        decision = worker_decision(held, reason)

        def command(recovery: Recovery, locked: LockedLease) -> Events:
            lease = locked.row.view(seen_at=locked.seen_at, grace_s=self._limits.grace_s)
            fence = locked.new_fence
            return expire(recovery, decision, lease=lease, loss=loss, fence=fence)

        def once() -> Recovery | None:
            with self._database.transaction() as cursor:
                locked = self._ledger.lock_one(cursor, held.attempt_id)
                if locked is None:
                    return None
                if not locked.row.is_held_under(held.fence):
                    found = decidable(cursor, [held.attempt_id]).get(held.attempt_id)
                    return found if _was_given_up(found, decision) else None
                return self._ledger.decide_one(cursor, locked, command)

        given_up = retry(once)
        if given_up is None:
            raise refusal(self._database, self._ledger, held, WriteKind.HAND_BACK)
        return given_up

    def own(self, held: Held) -> Ending | LossReason | None:
        """How the lease's own worker ended it or handed it back; None where it did not.

        While the row is held, the log is not believed: any role that may append there could forge
        an end.
        """
        with self._database.cursor() as cursor:
            row = read_lease(cursor, held.attempt_id)
            if row is None or row.is_held_under(held.fence):
                return None
            recovery = self._ledger.inspect(cursor, held.attempt_id)
        ended, lost = recovery.ended, recovery.lost
        if (
            isinstance(ended, LeaseEnded)
            and ended.fence == held.fence
            and ended.recorded_by.role == "worker"
        ):
            return ended.ending
        is_back = lost is not None and lost.lease.fence == held.fence
        return lost.loss if lost is not None and is_back else None


def _was_given_up(found: object, decision: Decision) -> TypeGuard[Recovery]:
    """Whether this decision is the last loss: its reply was lost, not its commit."""
    if not isinstance(found, Recovery) or found.lost is None:
        return False
    return found.lost.event_id == decision.event_id
