"""Reads the log: the history of one attempt, an attempt as of any event, the log in order."""

from datetime import datetime
from hashlib import sha256
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain.errors import InvalidInput, StreamUnusable, UnknownAttempt
from recovery_journal.domain.events import AnyEvent, LeaseEnded, Quarantined, StepFailed
from recovery_journal.domain.journal_events import JOURNAL_STREAM, AnyJournalEvent
from recovery_journal.domain.lease import Actor
from recovery_journal.domain.recovery import Recovery
from recovery_journal.log.reader import SettledReader
from recovery_journal.log.rows import Row
from recovery_journal.log.streams import Stream, streams
from recovery_journal.postgres.database import Database
from recovery_journal.store.failure_texts import find_texts

UNKNOWN: Final = Actor(role="unknown", host="", pid=0, program="")


class UnreadableEvent(Struct, frozen=True, kw_only=True, tag="unreadable"):
    """An event that cannot be decoded, and that is skipped or belongs to the journal's own stream;
    the digest is that of its stored bytes. The author in its content cannot be known."""

    originator_id: str
    originator_version: int
    recorded_by: Actor = UNKNOWN
    reason: str = ""
    stored_tag: str
    state_digest: str
    problem: str


class HistoryEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event, its place in the log, and when the database recorded it.

    `is_skipped`: a person made every reader pass over it, as the journal's own history records.
    The text of a failure is put back into its event while it is kept beside the log; the log itself
    has only its digest then (`message_digest`).
    """

    position: int
    recorded_at: datetime
    event: AnyEvent | AnyJournalEvent | UnreadableEvent
    is_skipped: bool = False


class History:
    """Reads the log; no projection is queried."""

    def __init__(self, database: Database, reader: SettledReader) -> None:
        self._database = database
        self._reader = reader

    def of(self, attempt_id: str, *, version: int | None = None) -> list[HistoryEntry]:
        """Every event of an attempt, in order, up to its `version`-th. Raises `UnknownAttempt`,
        `UnknownEvent`, `CorruptEvent`, and `InvalidInput` for a version that does not exist yet."""
        stream = self._stream(attempt_id)
        if stream is None:
            raise UnknownAttempt(attempt_id)
        last = stream.rows[-1].version
        if version is not None and version > last:
            raise _to_come(attempt_id, version, last)
        rows = [it for it in stream.rows if it.version <= (version or last)]
        return self._with_texts([_entry(row) for row in rows])

    def of_journal(self) -> list[HistoryEntry]:
        """Every event of the journal's own stream, in order."""
        stream = self._stream(JOURNAL_STREAM)
        return [_entry(row) for row in stream.rows] if stream else []

    def recovery(self, attempt_id: str, *, version: int | None) -> Recovery:
        """An attempt after its `version`-th event, or now. Raises `UnknownAttempt`, and
        `InvalidInput` for a version that does not exist yet."""
        stream = self._stream(attempt_id)
        recovery = stream.recovery(upto=version) if stream else None
        if recovery is None:
            raise UnknownAttempt(attempt_id)
        if version is not None and version != recovery.version:
            raise _to_come(attempt_id, version, recovery.version)
        return recovery

    def log(self, *, after: int, limit: int) -> list[HistoryEntry]:
        """Settled events after a position, including skipped ones and those of the journal's own
        stream: a part of the log that was read here never changes. The result ends before an event
        that cannot be read; its error is raised only when it comes first."""
        entries: list[HistoryEntry] = []
        for row in self._reader.rows(after, limit):
            try:
                entries.append(_entry(row))
            except StreamUnusable:
                if not entries:
                    raise
                break
        return self._with_texts(entries)

    def _stream(self, name: str) -> Stream | None:
        with self._database.cursor() as cursor:
            return streams(cursor, [name]).get(name)

    def _with_texts(self, entries: list[HistoryEntry]) -> list[HistoryEntry]:
        """The entries with the texts of their failures, as far as they are still there."""
        with self._database.cursor() as cursor:
            texts = find_texts(cursor, list({entry.event.originator_id for entry in entries}))
        for place, entry in enumerate(entries):
            event = entry.event
            text = texts.get((event.originator_id, event.originator_version))
            if text and isinstance(event, StepFailed | LeaseEnded | Quarantined):
                entries[place] = replace(entry, event=replace(event, message=text))
        return entries


def _to_come(attempt_id: str, version: int, last: int) -> InvalidInput:
    return InvalidInput(
        f"a version of attempt {attempt_id!r}",
        found=str(version),
        needed=f"at most {last}, its last",
        do="choose one that its history shows",
    )


def _entry(row: Row) -> HistoryEntry:
    """Raises `StreamUnusable` for an event at which other readers have to stop too."""
    event: AnyEvent | AnyJournalEvent | UnreadableEvent
    try:
        event = row.journal_event() if row.stream == JOURNAL_STREAM else row.event()
    except StreamUnusable as error:
        if row.is_of_an_attempt:
            raise
        event = UnreadableEvent(
            originator_id=row.stream,
            originator_version=row.version,
            stored_tag=row.tag,
            state_digest=f"sha256:{sha256(row.state).hexdigest()}",
            problem=str(error),
        )
    return HistoryEntry(
        position=row.position, recorded_at=row.recorded_at, event=event, is_skipped=row.is_skipped
    )
