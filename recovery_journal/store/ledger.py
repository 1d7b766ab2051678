"""The ledger: the log and the lease rows, kept in step. Every decision on an attempt is made here.

One transaction, which the caller opens, locks lease rows, loads their attempts from the log, lets a
command decide, and records the decisions: the events are appended, the rows are set to what the
attempts now are, and the dispatch-ready list is updated inline. Locks are taken lease first, then
list, each in order of key (rule R8).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.errors import (
    AppendConflict,
    LeaseDiffers,
    RecoveryJournalError,
    StreamOccupied,
    UnknownAttempt,
)
from recovery_journal.domain.events import AnyEvent, LeaseGranted
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.domain.recovery import Recovery, fold
from recovery_journal.limits import Limits
from recovery_journal.log.appender import append, append_cohort
from recovery_journal.log.streams import decidable, streams
from recovery_journal.postgres.arrays import array
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.read_models.following.inline import InlineRows
from recovery_journal.store.failure_texts import FailureTexts
from recovery_journal.store.lease_row import COLUMNS, LeaseRow, LockedLease, lock_leases, locking
from recovery_journal.store.move import Move, change_rows
from recovery_journal.store.set_aside import set_aside, take_back

# No epoch is ever used twice, so the three conditions select the same rows as a join of fences
# would. A join is planned with statistics from before the crash, in which no lease is recovering,
# and scans the wanted rows once for each lease.
LOCK_BY_FENCE: Final = """
SELECT attempt_id, version, epoch, lease_id, clock_timestamp() AS seen_at
FROM leases
WHERE attempt_id = ANY(%(attempt_ids)s::text[])
    AND epoch = ANY(%(epochs)s::bigint[])
    AND status = %(status)s
ORDER BY attempt_id
FOR NO KEY UPDATE
"""

LOCK_BY_ID: Final = locking(f"""
SELECT {COLUMNS}
FROM leases
WHERE attempt_id = ANY(%(attempt_ids)s)
ORDER BY attempt_id
FOR NO KEY UPDATE
""")

BEGIN_LATER: Final = "UPDATE leases SET version = %(version)s WHERE attempt_id = %(attempt_id)s"

Events = tuple[AnyEvent, ...]
"""The decision of a command: the next events of one attempt; none where it was decided before."""

Answer = Recovery | RecoveryJournalError
"""An attempt after a decision, or why there is none."""


class Owned(Struct, frozen=True, gc=False):
    """A lease row that still has the fence of the sweeper that recovers the attempt, locked: the
    last event that changed the row, and the time."""

    version: int
    seen_at: datetime
    status: LeaseStatus = LeaseStatus.RECOVERING
    retry_at: datetime | None = None


LockedT = TypeVar("LockedT", LockedLease, Owned)
"""A locked row, as a command sees it."""


class Ledger:
    """The log and the lease rows of one schema, changed together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._texts = FailureTexts(limits.error_texts)
        self._listed = InlineRows(DISPATCH_READY)

    # Locking ----------------------------------------------------------------------------------

    def lock(self, cursor: Cursor[DictRow], attempt_ids: Iterable[str]) -> list[LockedLease]:
        """Lock these lease rows, in order of id; those that exist."""
        return lock_leases(cursor, LOCK_BY_ID, {"attempt_ids": list(attempt_ids)})

    def lock_one(self, cursor: Cursor[DictRow], attempt_id: str) -> LockedLease | None:
        """Lock one lease row; None where there is none."""
        locked = self.lock(cursor, [attempt_id])
        return locked[0] if locked else None

    def lock_owned(
        self, cursor: Cursor[DictRow], recoveries: Sequence[Recovery]
    ) -> dict[str, Owned]:
        """Lock the lease rows of the attempts that this process's sweeper still owns."""
        wanted = {
            "attempt_ids": array([one.attempt_id for one in recoveries]),
            "epochs": array([one.fence.epoch for one in recoveries]),
            "status": LeaseStatus.RECOVERING.value,
        }
        fences = {one.attempt_id: (one.fence.epoch, one.fence.lease_id) for one in recoveries}
        with cursor.connection.cursor(binary=True, row_factory=tuple_row) as rows_of_fences:
            rows = rows_of_fences.execute(LOCK_BY_FENCE, wanted).fetchall()
        return {
            attempt_id: Owned(version, seen_at)
            for attempt_id, version, *fence, seen_at in rows
            if fences[attempt_id] == tuple(fence)
        }

    # Deciding ---------------------------------------------------------------------------------

    def decide(
        self,
        cursor: Cursor[DictRow],
        locked: Sequence[LockedLease],
        command: Callable[[Recovery, LockedLease], Events],
        *,
        from_log: bool = False,
    ) -> dict[str, Answer]:
        """Decide on many attempts whose lease rows are locked; each gets its own answer. One that
        cannot be decided on, or be appended to, is set aside.

        With `from_log`, attempts are what their streams say, whatever their rows know of these.
        """
        by_id = {one.row.attempt_id: one for one in locked}
        if from_log:
            loaded = self.load_from_log(cursor, list(by_id))
        else:
            loaded = self.load(cursor, {attempt_id: one.row for attempt_id, one in by_id.items()})
        answers = self._record(cursor, loaded, command, by_id)
        self.set_aside(cursor, answers)
        return answers

    def decide_one(
        self,
        cursor: Cursor[DictRow],
        locked: LockedLease,
        command: Callable[[Recovery, LockedLease], Events],
    ) -> Recovery:
        """Decide on one attempt whose lease row is locked. Raises `UnknownAttempt`,
        `StreamUnusable`, `AppendConflict` and what the command raises."""
        attempt_id = locked.row.attempt_id
        loaded = self.load(cursor, {attempt_id: locked.row})
        return _only(self._record(cursor, loaded, command, {attempt_id: locked}))

    def advance(
        self,
        cursor: Cursor[DictRow],
        recoveries: Sequence[Recovery],
        command: Callable[[Recovery, Owned], Events],
    ) -> dict[str, Answer]:
        """Decide on the attempts that this process's sweeper still owns, as it knows them; those
        that another one has taken over have no answer.

        Where a stream has grown, as a refused stale write makes it grow, or where the command
        refuses, the attempt is loaded and decided on again.
        """
        owned = self.lock_owned(cursor, recoveries)
        known = {one.attempt_id: one for one in recoveries if one.attempt_id in owned}
        answers = self._record(cursor, known, command, owned)
        failed = [id_ for id_, answer in answers.items() if not isinstance(answer, Recovery)]
        if failed:
            loaded = self.load(cursor, {attempt_id: owned[attempt_id] for attempt_id in failed})
            again = self._record(cursor, loaded, command, owned)
            self.set_aside(cursor, again)
            answers |= again
        return answers

    def set_aside(self, cursor: Cursor[DictRow], answers: Mapping[str, object]) -> None:
        """Set those aside whose answer is an error, until their next try."""
        errors = {id_: it for id_, it in answers.items() if isinstance(it, RecoveryJournalError)}
        set_aside(cursor, errors, self._limits.policy)

    def _record(
        self,
        cursor: Cursor[DictRow],
        loaded: Mapping[str, Answer],
        command: Callable[[Recovery, LockedT], Events],
        locked: Mapping[str, LockedT],
    ) -> dict[str, Answer]:
        """Let the command decide on each, and record all decisions. Each gets its own answer: the
        attempt afterwards, or the error because of which nothing was written."""
        answers = dict(loaded)
        moves: list[Move] = []
        for attempt_id, recovery in loaded.items():
            if not isinstance(recovery, Recovery):
                continue
            try:
                events = command(recovery, locked[attempt_id])
            except RecoveryJournalError as error:
                answers[attempt_id] = error
            else:
                if events:
                    moves.append(Move(recovery, events))
        if not moves:
            return answers
        moves, texts = self._texts.withhold(moves)
        versions = append_cohort([move.events for move in moves], cursor)
        done: list[tuple[Move, Recovery]] = []
        for move, version in zip(moves, versions, strict=True):
            if isinstance(version, AppendConflict):
                answers[move.recovery.attempt_id] = version
            else:
                after = answers[move.recovery.attempt_id] = fold(move.recovery, move.events)
                done.append((move, after))
        change_rows(cursor, done, sweeper_ttl_s=self._limits.sweeper_ttl_s)
        written = [move for move, _ in done]
        self._texts.keep(cursor, written, texts)
        self._listed.write(cursor, [event for move in written for event in move.events])
        return answers

    # Loading ----------------------------------------------------------------------------------

    def load(
        self, cursor: Cursor[DictRow], known: Mapping[str, Owned | LeaseRow]
    ) -> dict[str, Answer]:
        """Load attempts whose lease rows are locked, for a decision. The answer for an attempt is
        `StreamUnusable` where its stream cannot be read, is contradictory, or has other events than
        its row knows of, and `UnknownAttempt` where it has no stream."""
        recoveries = decidable(cursor, list(known))
        found: dict[str, Answer] = {}
        for attempt_id, row in known.items():
            recovery = recoveries.get(attempt_id) or UnknownAttempt(attempt_id)
            if isinstance(recovery, Recovery) and not _is_known(recovery, row):
                recovery = self._difference(cursor, recovery, row)
            found[attempt_id] = recovery
        usable = [id_ for id_, row in known.items() if row.retry_at is not None]
        take_back(cursor, [id_ for id_ in usable if isinstance(found[id_], Recovery)])
        return found

    def load_from_log(
        self, cursor: Cursor[DictRow], attempt_ids: Sequence[str]
    ) -> dict[str, Answer]:
        """Load attempts from their streams alone, whatever their lease rows know."""
        found = decidable(cursor, attempt_ids)
        return {it: found.get(it) or UnknownAttempt(it) for it in attempt_ids}

    def inspect(self, cursor: Cursor[DictRow], attempt_id: str) -> Recovery:
        """Load one attempt from its stream alone, for inspection and not for a decision. Raises
        `UnknownAttempt`, `StreamUnusable`."""
        return _only(self.load_from_log(cursor, [attempt_id]))

    def _difference(
        self, cursor: Cursor[DictRow], recovery: Recovery, row: Owned | LeaseRow
    ) -> LeaseDiffers:
        stream = streams(cursor, [recovery.attempt_id])[recovery.attempt_id]
        return LeaseDiffers(
            recovery.attempt_id,
            lease_version=row.version,
            log_version=recovery.version,
            position=stream.position_after(row.version),
        )

    # Beginning --------------------------------------------------------------------------------

    def begin(self, cursor: Cursor[DictRow], granted: LeaseGranted) -> None:
        """Begin a stream, whose lease row the caller has made, behind the events that a person has
        skipped. Raises `StreamOccupied` where there is any other event, and `AppendBlocked`."""
        try:
            append([granted], cursor)
        except AppendConflict:
            stream = streams(cursor, [granted.originator_id]).get(granted.originator_id)
            if stream is None:
                raise
            position = stream.position_after(0)
            if position is not None:
                raise StreamOccupied(granted.originator_id, position=position) from None
            version = stream.rows[-1].version + 1
            append([replace(granted, originator_version=version)], cursor)
            known = {"attempt_id": granted.originator_id, "version": version}
            cursor.execute(BEGIN_LATER, known)


def _only(answers: Mapping[str, Answer]) -> Recovery:
    """The attempt of the only answer. Raises it where it is an error."""
    [answer] = answers.values()
    if isinstance(answer, RecoveryJournalError):
        raise answer
    return answer


def _is_known(recovery: Recovery, row: Owned | LeaseRow) -> bool:
    """Whether the row knows of every event: each changes it, except the steps of a recovery."""
    unknown = set(range(row.version + 1, recovery.version + 1))
    if row.version > recovery.version or not unknown:
        return row.version == recovery.version
    steps = (recovery.reloaded, recovery.replayed)
    return row.status == LeaseStatus.RECOVERING and unknown <= {
        step.originator_version for step in steps if step is not None
    }
