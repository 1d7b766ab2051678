"""Opens an attempt: grants the first lease of its life."""

from typing import Any

from msgspec import Struct
from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import grant
from recovery_journal.domain.errors import (
    AttemptExists,
    CheckpointTooLarge,
    CheckpointTooNew,
    PayloadCorrupt,
    RunBusy,
)
from recovery_journal.domain.events import LeaseGranted
from recovery_journal.domain.lease import OPEN_STATUSES, Holder, Progress
from recovery_journal.domain.recovery import Decision
from recovery_journal.log.open_writers import BRIEF
from recovery_journal.postgres.database import Database, one
from recovery_journal.process.identity import actor
from recovery_journal.store.lease import LeaseTerms
from recovery_journal.store.lease_row import (
    COLUMNS,
    LeaseRow,
    new_fences,
    read_lease,
    read_leases,
)
from recovery_journal.store.ledger import Ledger
from recovery_journal.store.runs import RunStore
from recovery_journal.store.writes import retry
from recovery_journal.values.payload import Payload

# Read from the end of the index, so that a run with ten thousand attempts costs no more.
DRAW = """
SELECT nextval('epochs') AS epoch,
    coalesce(
        (
            SELECT attempt_no
            FROM leases
            WHERE run_id = %(run_id)s
            ORDER BY attempt_no DESC
            LIMIT 1
        ),
        0
    ) + 1 AS attempt_no
"""

OPEN_ATTEMPT = """
SELECT attempt_id, status
FROM leases
WHERE run_id = %(run_id)s AND ended_at IS NULL AND status = ANY(%(open)s)
"""

# Only the append of the first event is left, and its wait for locks is brief.
GRANT = f"""
WITH granted AS (
    INSERT INTO leases (
        attempt_id, run_id, attempt_no, kind, tenant, priority, code_version, status, version,
        epoch, lease_id, worker_id, host, boot_id, pid, process_started, expires_at, ttl_s,
        deadline_at, ordinal, chain, checkpoint_count
    )
    VALUES (
        %(attempt_id)s, %(run_id)s, %(attempt_no)s, %(kind)s, %(tenant)s, %(priority)s,
        %(code_version)s, 'held', 1, %(epoch)s, %(lease_id)s, %(worker_id)s, %(host)s, %(boot_id)s,
        %(pid)s, %(process_started)s, clock_timestamp() + make_interval(secs => %(ttl_s)s),
        %(ttl_s)s, clock_timestamp() + make_interval(secs => %(timeout_s)s),
        %(ordinal)s, %(chain)s, %(checkpoint_count)s
    )
    ON CONFLICT (attempt_id) DO NOTHING
    RETURNING {COLUMNS}
)
SELECT {COLUMNS}
FROM granted
WHERE set_config('lock_timeout', '{BRIEF}', true) IS NOT NULL
"""


class Request(Struct, frozen=True, kw_only=True):
    """A worker's request to open an attempt; validated."""

    attempt_id: str
    run_id: str
    holder: Holder
    kind: str
    input: Payload
    code_version: str
    tenant: str
    priority: int
    ttl_s: float
    timeout_s: float | None
    event_id: str
    trace_id: str | None


class Acquisition:
    """Grants first leases. It never takes over an existing lease: only the pipeline does."""

    def __init__(self, database: Database, ledger: Ledger, runs: RunStore) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs

    def acquire(self, request: Request) -> LeaseTerms:
        """Open the attempt. Raises `AttemptExists`, `RunBusy`, `RunMismatch`, `RunPruned`,
        `StreamOccupied`, `AppendBlocked`, and for a run whose newest checkpoint cannot be a start
        `PayloadCorrupt`, `CheckpointTooNew`, `CheckpointTooLarge`.

        Idempotent: a second call with the same event id returns the lease that the first one
        granted.
        """
        try:
            return retry(lambda: self._grant(request))
        except UniqueViolation as error:
            raise self._busy(request) from error

    def _grant(self, request: Request) -> LeaseTerms:
        with self._database.transaction() as cursor:
            input_digest = self._runs.open_run(cursor, request.run_id, request.kind, request.input)
            try:
                progress = self._runs.end(request.run_id, cursor)
            except (PayloadCorrupt, CheckpointTooNew, CheckpointTooLarge):
                # An attempt that was opened before is not concerned: a retry gets its lease.
                if read_lease(cursor, request.attempt_id):
                    return self._granted_before(cursor, request)
                raise
            decision = Decision(
                event_id=request.event_id,
                by=actor("worker", request.holder.worker_id),
                trace_id=request.trace_id,
            )
            drawn = one(cursor.execute(DRAW, {"run_id": request.run_id}))
            event = grant(
                decision,
                attempt_id=request.attempt_id,
                run_id=request.run_id,
                holder=request.holder,
                fence=new_fences([drawn["epoch"]])[0],
                ttl_s=request.ttl_s,
                kind=request.kind,
                code_version=request.code_version,
                attempt_no=drawn["attempt_no"],
                input_digest=input_digest,
                tenant=request.tenant,
                priority=request.priority,
                timeout_s=request.timeout_s,
            )
            row = self._insert(cursor, event, progress)
            if row is None:
                return self._granted_before(cursor, request)
            self._ledger.begin(cursor, event)
            return terms_of(row)

    def _insert(
        self, cursor: Cursor[DictRow], event: LeaseGranted, progress: Progress
    ) -> LeaseRow | None:
        incarnation = event.holder.incarnation
        values: dict[str, Any] = {
            "attempt_id": event.originator_id,
            "run_id": event.run_id,
            "attempt_no": event.attempt_no,
            "kind": event.kind,
            "tenant": event.tenant,
            "priority": event.priority,
            "code_version": event.code_version,
            "epoch": event.fence.epoch,
            "lease_id": event.fence.lease_id,
            "worker_id": event.holder.worker_id,
            "host": incarnation.host,
            "boot_id": incarnation.boot_id,
            "pid": incarnation.pid,
            "process_started": incarnation.started,
            "ttl_s": event.ttl_s,
            "timeout_s": event.timeout_s,
            "ordinal": progress.ordinal,
            "chain": progress.digest,
            "checkpoint_count": progress.checkpoint_count,
        }
        return read_leases(cursor, GRANT, values).get(event.originator_id)

    def _granted_before(self, cursor: Cursor[DictRow], request: Request) -> LeaseTerms:
        """The lease that this decision granted in an earlier call, or the refusal where another
        decision opened the attempt."""
        row = read_lease(cursor, request.attempt_id)
        assert row is not None, "the attempt exists"
        granted = self._ledger.inspect(cursor, request.attempt_id).granted
        if granted.event_id == request.event_id and row.is_held_under(granted.fence):
            return terms_of(row)
        raise AttemptExists(request.attempt_id, status=row.status, worker_id=row.worker_id)

    def _busy(self, request: Request) -> RunBusy:
        wanted = {"run_id": request.run_id, "open": [status.value for status in OPEN_STATUSES]}
        with self._database.cursor() as cursor:
            row = cursor.execute(OPEN_ATTEMPT, wanted).fetchone()
        found = row or {"attempt_id": "?", "status": "ended meanwhile"}
        return RunBusy(request.run_id, open_attempt_id=found["attempt_id"], status=found["status"])


def terms_of(row: LeaseRow) -> LeaseTerms:
    """A held lease row as its worker's terms."""
    assert row.expires_at is not None, f"a held lease expires: {row.attempt_id!r}"
    return LeaseTerms(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        worker_id=row.worker_id,
        kind=row.kind,
        code_version=row.code_version,
        fence=row.fence,
        ttl_s=row.ttl_s,
        expires_at=row.expires_at,
        progress=row.progress,
        is_confirmed=row.is_confirmed,
    )
