"""The lease rows and the dispatch-ready list say what the log says: checked from the log alone."""

from collections.abc import Iterable

from psycopg.rows import DictRow

from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    Ending,
    LeaseEnded,
    ReadyForDispatch,
    StepFailed,
)
from recovery_journal.domain.journal_events import JOURNAL_STREAM
from recovery_journal.domain.recovery import RECOVERING, Recovery, Stage
from recovery_journal.journal import Journal
from recovery_journal.monitoring.history import HistoryEntry
from recovery_journal.projections.dispatch_ready import (
    DISPATCH_READY,
    DispatchReady,
    DispatchReadyRow,
)
from recovery_journal.projections.projection import Record
from recovery_journal.read_models.tables.row_form import RowForm

STATUS_OF_ENDING = {
    Ending.COMPLETED: "completed",
    Ending.FAILED: "failed",
    Ending.CANCELLED: "cancelled",
}
PAGE = 1_000

LEASES = """
SELECT *
FROM leases
WHERE %(attempt_id)s::text IS NULL OR attempt_id = %(attempt_id)s
ORDER BY attempt_id
"""


def assert_in_step(journal: Journal) -> None:
    """Compare every lease row with the fold of its stream, and the list with that of the log."""
    entries = whole_log(journal)
    rows = {row["attempt_id"]: row for row in lease_rows(journal)}
    assert rows.keys() == {entry.event.originator_id for entry in entries}
    for attempt_id in rows:
        assert_attempt_in_step(journal, attempt_id)
    assert listed_rows(journal) == _by_key(folded_list(entries))


def assert_attempt_in_step(journal: Journal, attempt_id: str) -> None:
    """Compare one lease row with the fold of its stream."""
    (row,) = lease_rows(journal, attempt_id)
    _assert_row(row, journal.recovery(attempt_id), journal.history(attempt_id)[-1])


def whole_log(journal: Journal) -> list[HistoryEntry]:
    """Every event of an attempt that there is."""
    entries: list[HistoryEntry] = []
    while page := journal.log(after=entries[-1].position if entries else 0, limit=PAGE):
        entries += page
    return [entry for entry in entries if entry.event.originator_id != JOURNAL_STREAM]


def lease_rows(journal: Journal, attempt_id: str | None = None) -> list[DictRow]:
    """Every lease row as it stands in its table, or that of one attempt."""
    with journal.database.cursor() as cursor:
        return cursor.execute(LEASES, {"attempt_id": attempt_id}).fetchall()


def listed_rows(journal: Journal) -> list[DispatchReadyRow]:
    """Every row of the dispatch-ready list, also of those that have left it."""
    query = "SELECT coalesce(json_agg(listed), '[]')::text AS rows FROM {} AS listed"
    with journal.database.cursor() as cursor:
        row = cursor.execute(query.format("projection_dispatch_ready").encode()).fetchone()
    assert row is not None
    return _by_key(RowForm(DispatchReady.row_type).from_json(row["rows"]))


def folded_list(entries: Iterable[HistoryEntry]) -> list[DispatchReadyRow]:
    """The dispatch-ready list as the log shows it."""
    rows: dict[str, list[DispatchReadyRow]] = {}
    for entry in entries:
        if entry.is_skipped or not isinstance(entry.event, AnyEvent):
            continue
        record = Record(entry.event, entry.position, entry.recorded_at)
        of_attempt = rows.setdefault(entry.event.originator_id, [])
        before = None
        if of_attempt and not isinstance(entry.event, ReadyForDispatch):
            before = of_attempt.pop()
        after = DISPATCH_READY.fold(before, record)
        of_attempt += [after] if after else []
    return [row for of_attempt in rows.values() for row in of_attempt]


def _assert_row(row: DictRow, recovery: Recovery, last: HistoryEntry) -> None:
    expected = {
        "status": _status(recovery),
        "run_id": recovery.run_id,
        "kind": recovery.granted.kind,
        "tenant": recovery.granted.tenant,
        "priority": recovery.granted.priority,
        "code_version": recovery.code_version,
        "epoch": recovery.fence.epoch,
        "lease_id": recovery.fence.lease_id,
        "recovery_no": recovery.recovery_no,
        "dispatch_id": recovery.dispatch_id,
        "is_confirmed": recovery.is_confirmed,
    }
    assert {name: row[name] for name in expected} == expected
    if recovery.stage in RECOVERING:  # the row does not follow each of the steps
        assert row["version"] <= recovery.version
    else:
        assert row["version"] == recovery.version
        assert row["worker_id"] == recovery.holder.worker_id
        assert row["pid"] == recovery.holder.incarnation.pid
    can_expire = recovery.stage in (Stage.HELD, *RECOVERING)
    assert (row["expires_at"] is not None) == can_expire
    assert (row["ended_at"] is not None) == (recovery.stage is Stage.ENDED)
    if isinstance(last.event, StepFailed):
        assert row["retry_at"] == last.event.retry_at


def _status(recovery: Recovery) -> str:
    if recovery.stage in RECOVERING:
        return "recovering"
    match recovery.ended:
        case LeaseEnded(ending=ending) if recovery.stage is Stage.ENDED:
            return STATUS_OF_ENDING[ending]
        case Abandoned(why=why) if recovery.stage is Stage.ENDED:
            return "cancelled" if why is AbandonReason.CANCELLED else "completed"
    return recovery.stage.value


def _by_key(rows: Iterable[DispatchReadyRow]) -> list[DispatchReadyRow]:
    return sorted(rows, key=lambda row: (row.attempt_id, row.entered_version))
