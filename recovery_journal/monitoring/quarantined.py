"""The attempts in quarantine, and a person's options for each."""

from datetime import datetime

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import StreamUnusable
from recovery_journal.domain.events import LiftOption, QuarantineCause, Quarantined
from recovery_journal.log.streams import Stream, streams
from recovery_journal.postgres.database import Database
from recovery_journal.store.failure_texts import Texts, find_texts

# The longest in quarantine first: a quarantined lease row changes only by leaving quarantine.
LISTED = """
SELECT leases.attempt_id, run_id, kind, tenant, recovery_no, renewed_at,
    aside.since AS aside_since, aside.position, aside.reason
FROM leases
LEFT JOIN set_aside AS aside USING (attempt_id)
WHERE ended_at IS NULL AND (status = 'quarantined' OR aside.attempt_id IS NOT NULL)
ORDER BY coalesce(aside.since, renewed_at), leases.attempt_id
LIMIT %(limit)s
"""


# A refused stale write after the quarantine has increased the row's version.
ONE = """
SELECT attempt_id, run_id, kind, tenant, recovery_no, renewed_at,
    NULL::timestamptz AS aside_since, NULL::bigint AS position, NULL AS reason
FROM leases
WHERE attempt_id = %(attempt_id)s AND status = 'quarantined' AND version >= %(version)s
"""


class QuarantinedAttempt(Struct, frozen=True, kw_only=True):
    """One attempt in quarantine, as its stream describes it, or one that is set aside.

    `options` are those that `lift_quarantine` accepts. For an attempt that is set aside, because no
    decision can be made on its stream, `error` is the reason and the remedy, `position` is the
    event that blocks, if one does, and cause and options are not known.
    """

    attempt_id: str
    run_id: str
    kind: str
    tenant: str
    recovery_no: int
    since: datetime
    worker_id: str | None = None
    cause: QuarantineCause | None = None
    explanation: str = ""
    options: tuple[LiftOption, ...] = ()
    error: str | None = None
    position: int | None = None


class QuarantineReading:
    """Finds them by their lease rows and reads the log, so no read waits for a follower."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def quarantined(self, *, limit: int) -> list[QuarantinedAttempt]:
        """The attempts in quarantine, the longest first."""
        with self._database.transaction() as cursor:
            rows = cursor.execute(LISTED, {"limit": limit}).fetchall()
            return self._read(cursor, rows)

    def of(self, attempt_id: str, *, version: int) -> QuarantinedAttempt | None:
        """The attempt that its event of this version quarantined, if it is still quarantined."""
        with self._database.transaction() as cursor:
            wanted = {"attempt_id": attempt_id, "version": version}
            return next(iter(self._read(cursor, cursor.execute(ONE, wanted).fetchall())), None)

    def _read(self, cursor: Cursor[DictRow], rows: list[DictRow]) -> list[QuarantinedAttempt]:
        wanted = [row["attempt_id"] for row in rows if row["reason"] is None]
        found = streams(cursor, wanted)
        texts = find_texts(cursor, wanted)
        return [_attempt(row, found.get(row["attempt_id"]), texts) for row in rows]


def _attempt(row: DictRow, stream: Stream | None, texts: Texts) -> QuarantinedAttempt:
    since, aside_since, position, reason = (
        row.pop(name) for name in ("renewed_at", "aside_since", "position", "reason")
    )
    if reason is not None:
        return QuarantinedAttempt(**row, since=aside_since, error=reason, position=position)
    try:
        recovery = stream.recovery() if stream else None
        records = stream.records() if stream else []
    except StreamUnusable as error:
        return QuarantinedAttempt(**row, since=since, error=str(error), position=error.position)
    quarantined = [record for record in records if isinstance(record.event, Quarantined)]
    if recovery is None or recovery.quarantined is None or not quarantined:
        return QuarantinedAttempt(**row, since=since)  # lifted since its row was read
    return QuarantinedAttempt(
        **row,
        since=quarantined[-1].recorded_at,
        worker_id=recovery.holder.worker_id,
        cause=recovery.quarantined.cause,
        explanation=_explanation(recovery.quarantined, texts),
        options=recovery.quarantined.options,
    )


def _explanation(event: Quarantined, texts: Texts) -> str:
    """The cause, with the text of the error where that is still kept."""
    said = event.message or texts.get((event.originator_id, event.originator_version))
    return f"{event.explanation}: {said}" if said else event.explanation
