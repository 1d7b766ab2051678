"""Reading the log: the history of one attempt, an attempt as of any event, the log in order."""

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from domain.errors import InvalidInput, RecoveryJournalError, UnknownAttempt
from domain.events import AnyEvent
from domain.recovery import Recovery
from projections.projection import Record
from recovery_journal.leases.failure_texts import find_texts
from recovery_journal.log.application import JournalApplication
from recovery_journal.postgres.database import Database


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One event, its place in the log, and when the database recorded it.

    `error_text` is what the failure said of which the event tells, where that is kept beside the
    log and not yet erased.
    """

    position: int
    recorded_at: datetime
    event: AnyEvent
    error_text: str | None = None


class History:
    """What the log says; no projection is asked."""

    def __init__(self, database: Database, application: JournalApplication) -> None:
        self._database = database
        self._application = application

    def of(self, attempt_id: str) -> list[HistoryEntry]:
        """Every event of an attempt, in order. Raises `UnknownAttempt`, `UnknownEvent`."""
        found = self._application.load_many([attempt_id]).get(attempt_id)
        if found is None:
            raise UnknownAttempt(attempt_id)
        if isinstance(found, RecoveryJournalError):
            raise found
        return self._entries([attempt_id], found)

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
        return self._entries({r.event.originator_id for r in page.records}, page.records)

    def _entries(self, attempt_ids: Iterable[str], records: Iterable[Record]) -> list[HistoryEntry]:
        with self._database.cursor() as cursor:
            texts = find_texts(cursor, list(attempt_ids))
        return [
            HistoryEntry(
                position=position,
                recorded_at=recorded_at,
                event=event,
                error_text=texts.get((event.originator_id, event.originator_version)),
            )
            for event, position, recorded_at in records
        ]
