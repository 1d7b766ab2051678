"""Reading the log: the history of one attempt, an attempt as of any event, the log in order."""

from datetime import datetime

from msgspec import Struct

from domain.errors import InvalidInput, RecoveryJournalError, UnknownAttempt
from domain.events import AnyEvent
from domain.recovery import Recovery
from recovery_journal.log.application import JournalApplication


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One event, its place in the log, and when the database recorded it."""

    position: int
    recorded_at: datetime
    event: AnyEvent


class History:
    """What the log says; no projection is asked."""

    def __init__(self, application: JournalApplication) -> None:
        self._application = application

    def of(self, attempt_id: str) -> list[HistoryEntry]:
        """Every event of an attempt, in order. Raises `UnknownAttempt`, `UnknownEvent`."""
        found = self._application.load_many([attempt_id]).get(attempt_id)
        if found is None:
            raise UnknownAttempt(attempt_id)
        if isinstance(found, RecoveryJournalError):
            raise found
        return [
            HistoryEntry(position=position, recorded_at=recorded_at, event=event)
            for event, position, recorded_at in found
        ]

    def recovery(self, attempt_id: str, *, version: int | None) -> Recovery:
        """An attempt after its `version`-th event, or now. Raises `UnknownAttempt`, and
        `InvalidInput` for a version that is still to come."""
        recovery = self._application.recovery(attempt_id, version=version)
        if version is not None and version != recovery.version:
            raise InvalidInput(
                f"a version of attempt {attempt_id!r}",
                found=str(version),
                needed=f"at most {recovery.version}, its last",
                do="choose one that its history shows",
            )
        return recovery

    def log(self, *, after: int, limit: int) -> list[HistoryEntry]:
        """Settled events after a position: what is read here never changes."""
        page = self._application.reader.read(after, limit)
        return [
            HistoryEntry(position=position, recorded_at=recorded_at, event=event)
            for event, position, recorded_at in page.records
        ]
