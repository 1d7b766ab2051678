"""Keeps the log and the lease rows in step: every change of an attempt is made here.

A move is made in the caller's transaction, which holds the lease row's lock: the events are
appended, the row is set to what the attempt now is, and the dispatch-ready list is updated inline.
Locks are taken lease first, then list, each in order of key (rule R8).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import urandom
from typing import Final, NamedTuple

from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.errors import (
    AppendConflict,
    LeaseDiffers,
    RecoveryJournalError,
    StreamOccupied,
    StreamUnusable,
    UnknownAttempt,
)
from recovery_journal.domain.events import AnyEvent, LeaseGranted
from recovery_journal.domain.lease import Fence, LeaseStatus
from recovery_journal.domain.recovery import Recovery, fold
from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.arrays import array
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.read_models.following.inline import InlineRows
from recovery_journal.store.failure_texts import FailureTexts
from recovery_journal.store.lease_row import COLUMNS, LeaseRow, by_attempt, read_leases
from recovery_journal.store.move import Move, change_rows
from recovery_journal.store.quarantine_notices import note_quarantines
from recovery_journal.store.set_aside import take_back

# No epoch is ever used twice, so the three conditions select the same rows as a join of fences
# would. A join is planned with statistics from before the crash, in which no lease is recovering,
# and scans the wanted rows once for each lease.
LOCK_BY_FENCE = """
SELECT attempt_id, version, epoch, lease_id
FROM leases
WHERE attempt_id = ANY(%(attempt_ids)s::text[])
    AND epoch = ANY(%(epochs)s::bigint[])
    AND status = %(status)s
ORDER BY attempt_id
FOR NO KEY UPDATE
"""

LOCK_BY_ID = f"""
SELECT {COLUMNS}
FROM leases
WHERE attempt_id = ANY(%(attempt_ids)s)
ORDER BY attempt_id
FOR NO KEY UPDATE
"""

BEGIN_LATER = "UPDATE leases SET version = %(version)s WHERE attempt_id = %(attempt_id)s"

DRAW_EPOCHS = "SELECT nextval('epochs') AS epoch FROM generate_series(1, %(count)s)"

LEASE_ID_BYTES: Final = 16

NOW = "SELECT clock_timestamp() AS now"

Moved = Recovery | RecoveryJournalError


class Known(NamedTuple):
    """A lease row's knowledge of its stream: the last event that changed it, and the status."""

    version: int
    status: str


class Ledger:
    """The log and the lease rows of one schema, moved together."""

    def __init__(self, application: JournalApplication, texts: FailureTexts) -> None:
        self._application = application
        self._texts = texts
        self._listed = InlineRows(DISPATCH_READY)

    def now(self, cursor: Cursor[DictRow]) -> datetime:
        """The database's clock."""
        row = cursor.execute(NOW).fetchone()
        assert row is not None
        now: datetime = row["now"]
        return now

    def draw_fences(self, cursor: Cursor[DictRow], count: int) -> list[Fence]:
        """New fences, each with a larger epoch than any before."""
        rows = cursor.execute(DRAW_EPOCHS, {"count": count}).fetchall()
        return fences_of([row["epoch"] for row in rows])

    def lock(self, cursor: Cursor[DictRow], attempt_ids: Iterable[str]) -> dict[str, LeaseRow]:
        """Lock these lease rows, in order of id; those that exist."""
        return by_attempt(read_leases(cursor, LOCK_BY_ID, {"attempt_ids": list(attempt_ids)}))

    def lock_fenced(
        self,
        cursor: Cursor[DictRow],
        fences: Sequence[tuple[str, Fence]],
        status: LeaseStatus,
    ) -> dict[str, Known]:
        """Lock the lease rows that still have these fences and this status, in order of id; return
        what they know of their streams."""
        wanted = {
            "attempt_ids": array([attempt_id for attempt_id, _ in fences]),
            "epochs": array([fence.epoch for _, fence in fences]),
            "status": status.value,
        }
        by_id = {attempt_id: (fence.epoch, fence.lease_id) for attempt_id, fence in fences}
        with cursor.connection.cursor(binary=True, row_factory=tuple_row) as locking:
            rows = locking.execute(LOCK_BY_FENCE, wanted).fetchall()
        return {
            id_: Known(version=version, status=status.value)
            for id_, version, *fence in rows
            if by_id[id_] == tuple(fence)
        }

    def load(
        self, cursor: Cursor[DictRow], known: Mapping[str, Known | LeaseRow]
    ) -> dict[str, Moved]:
        """Load attempts whose lease rows the caller has locked, for a decision. The answer for an
        attempt is `StreamUnusable` where its stream cannot be read, is contradictory, or has other
        events than its row knows of, and `UnknownAttempt` where it has no stream."""
        recoveries = self._application.load_recoveries(list(known), cursor)
        found: dict[str, Moved] = {}
        for attempt_id, row in known.items():
            recovery = recoveries.get(attempt_id) or UnknownAttempt(attempt_id)
            if isinstance(recovery, Recovery) and not _is_known(recovery, row):
                recovery = self._difference(cursor, recovery, row)
            found[attempt_id] = recovery
        take_back(cursor, [id_ for id_ in known if _is_usable_again(found[id_], known[id_])])
        return found

    def load_from_log(
        self, cursor: Cursor[DictRow], attempt_ids: Sequence[str]
    ) -> dict[str, Recovery | StreamUnusable]:
        """Load attempts from their streams alone, whatever their lease rows know."""
        return self._application.load_recoveries(attempt_ids, cursor)

    def _difference(
        self, cursor: Cursor[DictRow], recovery: Recovery, row: Known | LeaseRow
    ) -> LeaseDiffers:
        stream = self._application.streams([recovery.attempt_id], cursor)[recovery.attempt_id]
        return LeaseDiffers(
            recovery.attempt_id,
            lease_version=row.version,
            log_version=recovery.version,
            position=stream.position_after(row.version),
        )

    def begin(self, cursor: Cursor[DictRow], granted: LeaseGranted) -> None:
        """Begin a stream, whose lease row the caller has made, behind the events that a person has
        skipped. Raises `StreamOccupied` where there is any other event, and `AppendBlocked`."""
        try:
            self._application.append([granted], cursor=cursor)
        except AppendConflict:
            stream = self._application.streams([granted.originator_id], cursor).get(
                granted.originator_id
            )
            if stream is None:
                raise
            position = stream.position_after(0)
            if position is not None:
                raise StreamOccupied(granted.originator_id, position=position) from None
            version = stream.rows[-1]["originator_version"] + 1
            self._application.append([replace(granted, originator_version=version)], cursor=cursor)
            known = {"attempt_id": granted.originator_id, "version": version}
            cursor.execute(BEGIN_LATER, known)

    def record(self, cursor: Cursor[DictRow], moves: Sequence[Move]) -> list[Moved]:
        """Append, change the lease rows and the list. Each move gets its own answer: the attempt
        afterwards, or the conflict because of which none of its events was written."""
        active, texts = self._texts.withhold([move for move in moves if move.events])
        answers = self._application.append_cohort([move.events for move in active], cursor=cursor)
        refused = {
            move.recovery.attempt_id: answer
            for move, answer in zip(active, answers, strict=True)
            if isinstance(answer, AppendConflict)
        }
        done = [move for move in active if move.recovery.attempt_id not in refused]
        after = {move.recovery.attempt_id: fold(move.recovery, move.events) for move in done}
        change_rows(cursor, [(move, after[move.recovery.attempt_id]) for move in done])
        note_quarantines(cursor, done)
        self._texts.keep(cursor, done, texts)
        self._listed.write(cursor, [event for move in done for event in move.events])
        return [
            refused.get(move.recovery.attempt_id)
            or after.get(move.recovery.attempt_id, move.recovery)
            for move in moves
        ]

    def go_on(self, cursor: Cursor[DictRow], moves: Sequence[Move]) -> list[Moved]:
        """Append steps that advance a recovery from one stage to the next; their rows, which the
        caller has locked, stay unchanged. Each move gets its own answer."""
        answers = self._application.append_cohort([move.events for move in moves], cursor=cursor)
        return [
            answer if isinstance(answer, AppendConflict) else fold(move.recovery, move.events)
            for move, answer in zip(moves, answers, strict=True)
        ]

    def load_one(
        self, cursor: Cursor[DictRow], attempt_id: str, known: Known | LeaseRow
    ) -> Recovery:
        """Load one attempt whose lease row the caller has locked. Raises `UnknownAttempt`,
        `StreamUnusable`."""
        found = self.load(cursor, {attempt_id: known})[attempt_id]
        if isinstance(found, RecoveryJournalError):
            raise found
        return found

    def look_at(self, cursor: Cursor[DictRow], attempt_id: str) -> Recovery:
        """Load one attempt from its stream alone, for inspection and not for a decision. Raises
        `UnknownAttempt`, `StreamUnusable`."""
        found = self.load_from_log(cursor, [attempt_id]).get(attempt_id)
        if found is None:
            raise UnknownAttempt(attempt_id)
        if isinstance(found, RecoveryJournalError):
            raise found
        return found

    def has_decided(self, cursor: Cursor[DictRow], attempt_id: str, event_id: str) -> bool:
        """Whether a decision is in the stream: its reply was lost and not its commit (rule R5)."""
        return self._application.has_decision(attempt_id, event_id, cursor=cursor)

    def record_all(self, cursor: Cursor[DictRow], moves: Sequence[Move]) -> list[Recovery]:
        """As `record`, but raise the first conflict, which rolls the transaction back."""
        answers = []
        for answer in self.record(cursor, moves):
            if isinstance(answer, RecoveryJournalError):
                raise answer
            answers.append(answer)
        return answers

    def record_one(
        self, cursor: Cursor[DictRow], recovery: Recovery, events: tuple[AnyEvent, ...]
    ) -> Recovery:
        """Record the events of an attempt that no sweeper drives on."""
        return self.record_all(cursor, [Move(recovery, events, recovery.holder, lasts_s=0)])[0]


def _is_known(recovery: Recovery, row: Known | LeaseRow) -> bool:
    """Whether the row knows of every event: each changes it, except the steps of a recovery."""
    unknown = set(range(row.version + 1, recovery.version + 1))
    if row.version > recovery.version or not unknown:
        return row.version == recovery.version
    steps = (recovery.reloaded, recovery.replayed)
    return row.status == LeaseStatus.RECOVERING and unknown <= {
        step.originator_version for step in steps if step is not None
    }


def _is_usable_again(found: Moved, row: Known | LeaseRow) -> bool:
    """Whether an attempt that may have been set aside can be decided on now."""
    return isinstance(found, Recovery) and isinstance(row, LeaseRow) and row.retry_at is not None


def fences_of(epochs: Sequence[int]) -> list[Fence]:
    """Fences of epochs that were drawn just now, each with a random id."""
    drawn = urandom(LEASE_ID_BYTES * len(epochs)).hex()
    size = 2 * LEASE_ID_BYTES
    return [
        Fence(epoch=epoch, lease_id=drawn[at * size : (at + 1) * size])
        for at, epoch in enumerate(epochs)
    ]
