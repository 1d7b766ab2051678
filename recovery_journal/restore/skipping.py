"""Skips an event that blocks readers: it was damaged, or something else than the journal appended
it.

The event stays in the log. From the end of one transaction on every reader passes over it, its
attempt's lease row is set to what the rest of the stream says, and rows of projections that it had
changed are folded again or marked for a rebuild. Fences never move back: where the row and the rest
of the stream disagree, the attempt is fenced and recovered, as after a restore.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import (
    InvalidInput,
    LeaseDiffers,
    StoreBusy,
    StreamUnusable,
    UnknownEvent,
)
from recovery_journal.domain.journal_events import JOURNAL_STREAM
from recovery_journal.domain.recovery import RECOVERING, Decision, Recovery
from recovery_journal.limits import Limits
from recovery_journal.log import journal_stream
from recovery_journal.log.rows import Row
from recovery_journal.log.streams import Stream, streams
from recovery_journal.postgres.database import Database
from recovery_journal.process.identity import actor
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.rebuild import registry
from recovery_journal.read_models.rebuild.rebuild_lock import RebuildLock
from recovery_journal.read_models.tables.table_definition import drop_shadows
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.restore.fencing import Fencing
from recovery_journal.restore.refolding import Refolding
from recovery_journal.store.lease_row import LeaseRow, LockedLease
from recovery_journal.store.ledger import Ledger
from recovery_journal.store.move import status_of
from recovery_journal.store.set_aside import take_back

# The row stays correct; only its version now counts the skipped events.
CATCH_UP: Final = """
UPDATE leases
SET version = %(version)s, retry_at = NULL
WHERE attempt_id = %(attempt_id)s
"""

EXPLANATION_LETTERS: Final = 500


class Skipped(Struct, frozen=True, kw_only=True):
    """The result of `skip`. `is_done`: this call skipped the event; otherwise it was skipped
    before.

    `left` is what still blocks the attempt, if anything does. `projections` had folded the event
    into rows that mix attempts: rebuild them. `swept`: the attempt was fenced, and recovered to
    this stage.
    """

    position: int
    attempt_id: str
    version: int
    is_done: bool
    obstacle: str = ""
    left: str | None = None
    projections: tuple[str, ...] = ()
    swept: SweepResult | None = None


class Skipping:
    """Skips one event at a time, each in one transaction under its attempt's lease row."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        cohorts: Cohorts,
        projections: Sequence[Projection[Any]],
        limits: Limits,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._cohorts = cohorts
        self._refolding = Refolding(database, projections)
        self._fencing = Fencing(database, ledger, limits)
        self._limits = limits

    def skip(self, position: int, *, by: str, reason: str) -> Skipped:
        """Make every reader pass over the event at this position. Raises `InvalidInput` where no
        event is, or where the event blocks nothing."""
        lock = RebuildLock(self._database)
        if not lock.acquire():  # it may have folded the event already
            raise StoreBusy("skip an event: a rebuild is under way", limit="0 s")
        try:
            with self._database.transaction() as cursor:
                skipped, recovery = self._skip(cursor, position, by=by, reason=reason)
        finally:
            lock.release()
        if recovery is not None and recovery.stage in RECOVERING:
            [swept] = self._cohorts.drive([recovery])
            return replace(skipped, swept=swept)
        return skipped

    def _skip(
        self, cursor: Cursor[DictRow], position: int, *, by: str, reason: str
    ) -> tuple[Skipped, Recovery | None]:
        attempt_id = _stored(cursor, position).stream
        locked = self._ledger.lock_one(cursor, attempt_id)
        stored = _stored(cursor, position)  # again, now that no other process skips here
        version = stored.version
        done = Skipped(position=position, attempt_id=attempt_id, version=version, is_done=False)
        if stored.is_skipped:
            return done, None
        obstacle = _obstacle(cursor, stored, locked.row if locked else None)
        journal_stream.skip(cursor, stored, by=by, reason=reason, obstacle=obstacle)
        _forget_rebuild(cursor)
        projections = self._refolding.refold(cursor, attempt_id, position)
        decision = Decision(
            event_id=uuid4().hex,
            by=actor("person", by),
            reason=f"after position {position} was skipped: {reason}",
        )
        left, recovery = self._settle(cursor, locked, decision) if locked else (None, None)
        found = {"obstacle": obstacle, "left": left, "projections": projections}
        return replace(done, is_done=True, **found), recovery

    def _settle(
        self, cursor: Cursor[DictRow], locked: LockedLease, decision: Decision
    ) -> tuple[str | None, Recovery | None]:
        """Set the lease row to what the stream now says; return what still blocks, or the attempt,
        where it was fenced and has to be recovered."""
        row = locked.row
        try:
            recovery = _usable(cursor, row)
        except StreamUnusable as error:
            self._ledger.set_aside(cursor, {row.attempt_id: error})
            return str(error), None
        take_back(cursor, [row.attempt_id])
        # An ended attempt stays ended: its result is kept, and nothing may run again.
        is_said = status_of(recovery) == row.status and recovery.fence == row.fence
        if is_said or row.ended_at is not None:
            known = {"attempt_id": row.attempt_id, "version": recovery.version}
            cursor.execute(CATCH_UP, known)
            return None, None
        fenced = self._fencing.fence_one(cursor, locked, decision)
        if isinstance(fenced, Recovery):
            return None, fenced
        return fenced.error or None, None


def _stored(cursor: Cursor[DictRow], position: int) -> Row:
    stored = journal_stream.find(cursor, position)
    if stored is None:
        raise _refused(position, "no event", "that of an event", "see `status`, or `history`")
    if stored.stream == JOURNAL_STREAM:
        raise _refused(
            position,
            "an event of the journal's own stream",
            "one of an attempt",
            "nothing to do: it blocks no reader of attempts",
        )
    return stored


def _forget_rebuild(cursor: Cursor[DictRow]) -> None:
    """An unfinished rebuild may have folded the event."""
    begun = registry.find(cursor)
    if begun is not None:
        drop_shadows(cursor, begun.projections)
        registry.end(cursor)


def _obstacle(cursor: Cursor[DictRow], stored: Row, row: LeaseRow | None) -> str:
    """The defect of an event, for the record. Raises `InvalidInput` where it has none."""
    position, version = stored.position, stored.version
    is_unknown_to_row = row is None or version > row.version
    try:
        stored.event()
    except UnknownEvent as error:
        if is_unknown_to_row:
            return str(error)[:EXPLANATION_LETTERS]
        raise _refused(
            position,
            f"event {stored.tag!r} of a newer program, of which the lease row knows",
            "one that no program of yours has appended",
            "upgrade recovery-journal, which can then read it",
        ) from error
    except StreamUnusable as error:
        return str(error)[:EXPLANATION_LETTERS]
    if row is None:
        return "no lease row knows of its attempt"
    try:
        _usable(cursor, row)
    except StreamUnusable as error:
        if error.position == position or version > row.version:
            return str(error)[:EXPLANATION_LETTERS]
    raise _refused(
        position,
        "an event that can be read and was appended by the journal",
        "one that is damaged, impossible, or unknown to its lease row",
        "leave it: without it the attempt's history would change",
    )


def _usable(cursor: Cursor[DictRow], row: LeaseRow) -> Recovery:
    """The attempt from its stream. Raises `StreamUnusable`, also where its row does not know of an
    event that is not skipped."""
    stream = streams(cursor, [row.attempt_id])[row.attempt_id]
    recovery = stream.decidable()
    position = _unknown_position(stream, recovery, row)
    if recovery is None or position is not None:
        raise LeaseDiffers(
            row.attempt_id,
            lease_version=row.version,
            log_version=stream.rows[-1].version,
            position=position,
        )
    return recovery


def _unknown_position(stream: Stream, recovery: Recovery | None, row: LeaseRow) -> int | None:
    steps = (recovery.reloaded, recovery.replayed) if recovery else ()
    known = {step.originator_version for step in steps if step and row.status == "recovering"}
    return next(
        (
            one.position
            for one in stream.rows
            if one.version > row.version and one.version not in known and not one.is_skipped
        ),
        None,
    )


def _refused(position: int, found: str, needed: str, do: str) -> InvalidInput:
    return InvalidInput(f"position {position} to be skipped", found=found, needed=needed, do=do)
