"""Claiming: a worker takes recovered attempts from the dispatch-ready list (rule R8).

One transaction locks `ready` lease rows in the order of the list, passing over those that another
claimer has locked; appends `Dispatched`; grants; and takes them off the list. Exactly one wins.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from domain import holding
from domain.checkpoint import Checkpoint, CheckpointProblem, InDoubt
from domain.errors import (
    InvalidInput,
    PayloadCorrupt,
    RecoveryJournalError,
    ServerUnavailable,
)
from domain.lease import Holder, LeaseStatus
from domain.pipeline import RecoveryContext
from domain.recovery import Decision, Recovery
from domain.replay import replay_chain
from domain.wording import message_of
from projections.dispatch_ready import DISPATCH_READY
from recovery_journal.following.legibility import legible
from recovery_journal.identity import actor
from recovery_journal.leases.acquisition import terms_of
from recovery_journal.leases.lease import Lease, LeaseTerms
from recovery_journal.leases.ledger import Ledger, fences_of
from recovery_journal.leases.move import Move
from recovery_journal.leases.row import COLUMNS, LeaseRow, by_attempt, read_leases
from recovery_journal.leases.runs import RunStore, TailStep
from recovery_journal.leases.taken import READY, Taken, granted, take
from recovery_journal.leases.tips import Kept
from recovery_journal.leases.writes import asking_again
from recovery_journal.limits import Limits
from recovery_journal.payload import Value, encode
from recovery_journal.postgres.database import Database
from recovery_journal.recovering.replayer import TailReplayer

# In the claim's own transaction, so that a claimer that dies over its loading is missed as well.
DECLARE = """
UPDATE leases
SET session_lock = %(session_lock)s
WHERE dispatch_id = %(dispatch_id)s AND status = 'held' AND worker_id = %(worker_id)s
"""

# After a lost reply: what this very claim has won already.
WON = f"""
SELECT {COLUMNS}
FROM leases
WHERE dispatch_id = %(dispatch_id)s AND status = 'held' AND worker_id = %(worker_id)s
ORDER BY attempt_id
"""

# An idle fleet asks this, and no more, all day.
LOOK = f"""
SELECT EXISTS (
        SELECT
        FROM leases
        WHERE dispatch_id = %(dispatch_id)s AND status = 'held' AND worker_id = %(worker_id)s
    ) AS has_won,
    EXISTS (SELECT FROM {READY}) AS has_ready
"""


class Wanted(Struct, frozen=True, kw_only=True):
    """What a worker claims; checked already. Filters are None where anything will do."""

    holder: Holder
    kinds: list[str] | None
    tenants: list[str] | None
    code_versions: list[str] | None
    limit: int
    ttl_s: float
    dispatch_id: str
    is_again: bool
    session_lock: int | None = None


class Claim(Struct, frozen=True, kw_only=True):
    """A claimed attempt, with all that its worker needs to go on.

    `state` is the checkpoint's, None where the start is `input`. `tail` are the run steps recorded
    after it, with their outputs. `folded_state` is the state after the tail, where this process
    knows a reducer for the kind. `in_doubt` are announced run steps that were never recorded: their
    effects may have happened. `context` is None for a fresh attempt.
    """

    lease: Lease
    input: Value
    checkpoint: Checkpoint
    tail: tuple[TailStep, ...] = ()
    state: Value = None
    folded_state: Value = None
    context: RecoveryContext | None = None

    @property
    def in_doubt(self) -> tuple[InDoubt, ...]:
        """Effects that may happen twice, each with its stable key."""
        return self.checkpoint.in_doubt


class Claims:
    """Grants recovered attempts to the workers that ask for them."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        runs: RunStore,
        replayer: TailReplayer,
        limits: Limits,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._replayer = replayer
        self._limits = limits

    def take(self, wanted: Wanted) -> list[tuple[LeaseTerms, Recovery]]:
        """Win up to `limit` attempts. After a lost reply - noticed here, or by a caller that asks
        again under its own dispatch id - it finds what it won and dispatches nothing twice."""
        if not wanted.is_again:
            try:
                return self._take(wanted)
            except ServerUnavailable:
                pass
        return asking_again(lambda: self._find_or_take(wanted))

    def kept(self, run_ids: Sequence[str]) -> Sequence[Kept]:
        """What the store keeps of these runs, to `load` claims from: one read for all of them."""
        return self._runs.kept(run_ids) if run_ids else ()

    def load(self, lease: Lease, recovery: Recovery, kept: Kept) -> Claim:
        """All that a lease's worker needs. Raises `PayloadCorrupt` where it cannot be trusted, and
        `InvalidInput` where it cannot be loaded or folded here."""
        tip = kept.tip
        if isinstance(tip, CheckpointProblem):
            raise PayloadCorrupt(f"run {lease.run_id!r}", found=tip.message, needed="an intact run")
        self._compare_chain(recovery, tip)
        tail = self._runs.tail(tip, kept.outputs)
        kind = recovery.granted.kind
        folded = None
        if self._replayer.has_reducer(kind):
            folded = self._fold(recovery, tip, tail, kept)
        return Claim(
            lease=lease,
            input=self._runs.input(lease.run_id, kept),
            checkpoint=tip,
            tail=tail,
            state=self._runs.load_state(tip, limit_bytes=self._limits.state_bytes, kept=kept.state),
            folded_state=folded,
            context=recovery.context() if recovery.reloaded else None,
        )

    def distrust(self, lease: Lease, problem: PayloadCorrupt | InvalidInput) -> None:
        """Quarantine a claimed attempt before any user code ran. One that was taken back meanwhile
        is left alone: whoever has it now finds the same, and the other claims are not lost."""
        with self._database.transaction() as cursor:
            row = self._ledger.lock(cursor, [lease.attempt_id])[lease.attempt_id]
            if row.fence != lease.fence or row.status != LeaseStatus.HELD:
                return
            recovery = self._ledger.load_one(cursor, lease.attempt_id)
            decision = Decision(event_id=lease.fence.lease_id, by=actor("worker", lease.worker_id))
            events = holding.diverge(
                recovery,
                decision,
                explanation=str(problem),
                found=problem.found,
                expected=problem.needed,
            )
            self._ledger.record_one(cursor, recovery, events)

    def _find_or_take(self, wanted: Wanted) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.cursor() as cursor, legible(DISPATCH_READY):
            parameters = _parameters(wanted) | _claim(wanted)
            look = cursor.execute(LOOK, parameters, prepare=True).fetchone()
        assert look is not None
        if look["has_won"] and (found := self._find(wanted)):
            return found
        return self._take(wanted) if look["has_ready"] else []

    def _find(self, wanted: Wanted) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.transaction() as cursor:
            self._declare(cursor, wanted)
            return [
                (terms_of(row), self._ledger.load_one(cursor, attempt_id))
                for attempt_id, row in self._won(cursor, wanted).items()
            ]

    def _take(self, wanted: Wanted) -> list[tuple[LeaseTerms, Recovery]]:
        with self._database.transaction() as cursor:
            with legible(DISPATCH_READY):
                found = take(cursor, _parameters(wanted))
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
        self, cursor: Cursor[DictRow], found: Sequence[Taken], wanted: Wanted
    ) -> list[Move]:
        decision = Decision(
            event_id=wanted.dispatch_id, by=actor("worker", wanted.holder.worker_id)
        )
        streams = self._ledger.load(cursor, [taken.row.attempt_id for taken in found])
        moves = []
        fences = fences_of([taken.new_epoch for taken in found])
        for (row, _, _), fence in zip(found, fences, strict=True):
            recovery = streams[row.attempt_id]
            if isinstance(recovery, RecoveryJournalError):
                # An unreadable stream must not stand at the head of the list for ever.
                self._ledger.defer(cursor, [row.attempt_id], self._limits.policy.backoff_limit_s)
                continue
            events = holding.dispatch(
                recovery,
                decision,
                holder=wanted.holder,
                fence=fence,
                ttl_s=wanted.ttl_s,
                dispatch_id=wanted.dispatch_id,
            )
            moves.append(Move(recovery, events, wanted.holder, lasts_s=wanted.ttl_s))
        return moves

    def _won(self, cursor: Cursor[DictRow], wanted: Wanted) -> dict[str, LeaseRow]:
        """The lease rows that this very claim holds."""
        return by_attempt(read_leases(cursor, WON, _claim(wanted)))

    def _declare(self, cursor: Cursor[DictRow], wanted: Wanted) -> None:
        """Say which session lock is the claimer's, in all that this very claim holds."""
        if wanted.session_lock is not None:
            cursor.execute(DECLARE, {**_claim(wanted), "session_lock": wanted.session_lock})

    def _compare_chain(self, recovery: Recovery, tip: Checkpoint) -> None:
        """The chain must lead where the recovery's replay led, before user code goes on."""
        replayed = recovery.replayed
        if replayed is None or tip.tip_ordinal > replayed.to_ordinal:
            return  # not lost since: its worker goes on
        is_shorter = tip.tip_ordinal < replayed.to_ordinal
        replay = None if is_shorter else replay_chain(recovery.attempt_id, tip, None)
        found = replay.digest if replay else tip.progress.digest
        if found != replayed.digest:
            raise PayloadCorrupt(
                f"the tail of run {tip.run_id!r}", found=found, needed=replayed.digest
            )

    def _fold(
        self, recovery: Recovery, tip: Checkpoint, tail: Sequence[TailStep], kept: Kept
    ) -> Value:
        """The state after the tail, which must be the one that the recovery's replay came to."""
        what = f"the folded state of run {recovery.run_id!r}"
        start = self._replayer.start_state(tip, kept)
        try:
            folded = self._replayer.fold(recovery.granted.kind, start, tail)
        except Exception as error:  # the user's code may raise anything
            raise InvalidInput(
                what,
                found=f"{type(error).__name__}: {message_of(error)}",
                needed="a reducer that folds its tail",
                do="mend the reducer, then lift the quarantine",
            ) from error
        needed = recovery.replayed.state_digest if recovery.replayed else None
        found = encode(folded, name=what).digest
        if needed is not None and found != needed:
            raise PayloadCorrupt(what, found=found, needed=needed)
        return folded


def _claim(wanted: Wanted) -> dict[str, Any]:
    """What names this very claim."""
    return {"dispatch_id": wanted.dispatch_id, "worker_id": wanted.holder.worker_id}


def _parameters(wanted: Wanted) -> dict[str, Any]:
    """What it would take."""
    return {
        "kinds": wanted.kinds,
        "tenants": wanted.tenants,
        "code_versions": wanted.code_versions,
        "limit": wanted.limit,
    }
