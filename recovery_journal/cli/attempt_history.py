"""The history of an attempt with its stages, as far as it can be read, and the part of it to
show."""

import re
from typing import Final

from msgspec import Struct

from recovery_journal import inputs
from recovery_journal.cli import words
from recovery_journal.cli.phases import HistoryStep, history_steps
from recovery_journal.domain.errors import StreamUnusable, UnknownAttempt
from recovery_journal.domain.events import FIRST_VERSION
from recovery_journal.journal import Journal

OF_RECOVERY: Final = re.compile(r"(.+)#(\d+)", re.DOTALL)


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
