"""The history of an attempt: its stages, as far as it can be read, and how long each phase took."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from recovery_journal import inputs
from recovery_journal.cli import words
from recovery_journal.domain import events
from recovery_journal.domain.errors import StreamUnusable, UnknownAttempt
from recovery_journal.domain.events import FIRST_VERSION
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Recovery, evolve
from recovery_journal.journal import Journal
from recovery_journal.monitoring.history import HistoryEntry

OF_RECOVERY: Final = re.compile(r"(.+)#(\d+)", re.DOTALL)

# The phase that the event ends. A phase lasts from the previous such event to this one.
PHASE_BEFORE: Final[dict[type[object], str]] = {
    events.CheckpointReloaded: "reload",
    events.Replayed: "replay",
    events.ReadyForDispatch: "make ready",
    events.Dispatched: "wait for a worker",
    events.Confirmed: "first write",
    events.Quarantined: "until quarantine",
    events.QuarantineLifted: "in quarantine",
    events.Resumed: "wait for a person",
    events.Abandoned: "until abandoned",
    events.LeaseEnded: "until the end",
}
BEGINNINGS: Final = (events.LeaseExpired, events.Quarantined, events.Resumed)
ENDS: Final = (events.Confirmed, events.Abandoned, events.LeaseEnded)


class HistoryStep(Struct, frozen=True):
    """One entry of a history, and the attempt after it."""

    entry: HistoryEntry
    after: Recovery


def history_steps(history: Iterable[HistoryEntry]) -> list[HistoryStep]:
    """A history with the attempt as it was after each event."""
    recovery: Recovery | None = None
    steps = []
    for entry in history:
        if isinstance(entry.event, events.RecoveryEvent) and not entry.is_skipped:
            recovery = evolve(recovery, entry.event)
        if recovery is not None:  # what stands before the grant is skipped
            steps.append(HistoryStep(entry, recovery))
    return steps


class AttemptHistory(Struct, frozen=True, kw_only=True):
    """A history, up to the first event that cannot be read, whose error is the `obstacle`; and the
    recovery to show, where not all are shown."""

    steps: list[HistoryStep]
    recovery_no: int | None
    obstacle: StreamUnusable | None

    def part(self) -> list[HistoryStep]:
        """The requested part. Raises the obstacle where that part may be behind it."""
        if self.recovery_no is None:
            return self.steps
        part = [one for one in self.steps if one.after.recovery_no == self.recovery_no]
        if part:
            return part
        if self.obstacle is not None:
            raise self.obstacle
        last = self.steps[-1].after
        raise inputs.refused(
            f"recovery {self.recovery_no} of attempt {last.attempt_id!r}",
            words.plural(last.recovery_no, "recovery", "recoveries"),
            "one of them, or 0 for what came before",
            "inspect its history",
        )


def history_of(journal: Journal, attempt: str, recovery: int | None) -> AttemptHistory:
    """The history, and the requested recovery: by an option, or as `a-42#2`."""
    try:
        return _read(journal, attempt, recovery)
    except UnknownAttempt:
        named = OF_RECOVERY.fullmatch(attempt)
        if named is None or recovery is not None:
            raise
        try:
            return _read(journal, named[1], int(named[2]))
        except UnknownAttempt:
            raise UnknownAttempt(attempt) from None


def _read(journal: Journal, attempt_id: str, recovery_no: int | None) -> AttemptHistory:
    """The history. Raises `UnknownAttempt`, and `StreamUnusable` where not even the first event can
    be read."""
    obstacle = None
    try:
        entries = journal.history(attempt_id)
    except StreamUnusable as error:
        if error.version is None or error.version <= FIRST_VERSION:
            raise
        obstacle = error
        entries = journal.history(attempt_id, version=error.version - 1)
    steps = history_steps(entries)
    if obstacle is not None and not steps:
        raise obstacle
    return AttemptHistory(steps=steps, recovery_no=recovery_no, obstacle=obstacle)


class PhaseTaken(Struct, frozen=True, kw_only=True):
    """One phase and its length."""

    name: str
    seconds: float


class RecoveryPhases(Struct, frozen=True, kw_only=True):
    """One recovery of an attempt. `silent_s` is how long the worker had sent nothing when its loss
    was seen; `total_s` is the time from the loss to the last of the phases."""

    attempt_id: str
    recovery_no: int
    began_at: datetime
    worker_id: str | None
    loss: LossReason | None
    silent_s: float | None
    phases: tuple[PhaseTaken, ...]
    taken_over_by: str | None
    total_s: float


def phases(steps: Sequence[HistoryStep]) -> list[RecoveryPhases]:
    """Each recovery in the history. Number 0 is one without a loss: an attempt that was quarantined
    or resumed before it was ever lost."""
    by_number: dict[int, list[HistoryEntry]] = {}
    for one in steps:
        if one.entry.is_skipped:
            continue
        entries = by_number.setdefault(one.after.recovery_no, [])
        if entries or isinstance(one.entry.event, BEGINNINGS):
            entries.append(one.entry)
    return [_phases(number, entries) for number, entries in by_number.items() if entries]


def _phases(recovery_no: int, entries: Sequence[HistoryEntry]) -> RecoveryPhases:
    first = entries[0]
    lost = first.event if isinstance(first.event, events.LeaseExpired) else None
    taken: list[PhaseTaken] = []
    taken_over_by, since = None, first.recorded_at
    for entry in entries[1:]:
        name = PHASE_BEFORE.get(type(entry.event))
        if name is None:
            continue
        seconds = (entry.recorded_at - since).total_seconds()
        taken.append(PhaseTaken(name=name, seconds=seconds))
        since = entry.recorded_at
        if isinstance(entry.event, events.Dispatched):
            taken_over_by = entry.event.holder.worker_id
        if isinstance(entry.event, ENDS):
            break
    return RecoveryPhases(
        attempt_id=first.event.originator_id,
        recovery_no=recovery_no,
        began_at=first.recorded_at,
        worker_id=lost.lease.holder.worker_id if lost else None,
        loss=lost.loss if lost else None,
        silent_s=(lost.lease.seen_at - lost.lease.renewed_at).total_seconds() if lost else None,
        phases=tuple(taken),
        taken_over_by=taken_over_by,
        total_s=(since - first.recorded_at).total_seconds(),
    )
