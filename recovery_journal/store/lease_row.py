"""A lease row: the store's state of one attempt, read by name."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow, args_row

from recovery_journal.domain.bounds import EARLIEST, LATEST, is_computable
from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.event_times import times_of_lease
from recovery_journal.domain.lease import (
    Fence,
    Holder,
    Incarnation,
    LeaseStatus,
    LeaseView,
    Progress,
)

COLUMNS = (
    "attempt_id, run_id, attempt_no, kind, tenant, priority, code_version, status, version, epoch, "
    "lease_id, worker_id, host, boot_id, pid, process_started, session_lock, recovery_no, "
    "dispatch_id, is_confirmed, granted_at, renewed_at, expires_at, ttl_s, deadline_at, retry_at, "
    "ended_at, ordinal, chain, checkpoint_count, loss, loss_reason, result_digest"
)


class LeaseRow(Struct, frozen=True, gc=False):
    """One row of `leases`, without its payloads: the fields are `COLUMNS`, in their order. Times
    are the database's."""

    attempt_id: str
    run_id: str
    attempt_no: int
    kind: str
    tenant: str
    priority: int
    code_version: str
    status: str
    version: int
    epoch: int
    lease_id: str
    worker_id: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    session_lock: int | None
    recovery_no: int
    dispatch_id: str | None
    is_confirmed: bool
    granted_at: datetime
    renewed_at: datetime
    expires_at: datetime | None
    ttl_s: float
    deadline_at: datetime | None
    retry_at: datetime | None
    ended_at: datetime | None
    ordinal: int
    chain: str
    checkpoint_count: int
    loss: str | None
    loss_reason: str | None
    result_digest: str | None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "LeaseRow":
        """From a result row that holds `COLUMNS`, and perhaps more."""
        return cls(**{name: row[name] for name in cls.__struct_fields__})

    @property
    def fence(self) -> Fence:
        """The fence that a write must match."""
        return Fence(epoch=self.epoch, lease_id=self.lease_id)

    @property
    def holder(self) -> Holder:
        """The holder of the lease: a worker, or a sweeper while the attempt is recovered."""
        incarnation = Incarnation(
            host=self.host, boot_id=self.boot_id, pid=self.pid, started=self.process_started
        )
        return Holder(worker_id=self.worker_id, incarnation=incarnation)

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return Progress(
            ordinal=self.ordinal, digest=self.chain, checkpoint_count=self.checkpoint_count
        )

    def view(self, *, seen_at: datetime, grace_s: float) -> LeaseView:
        """The lease as evidence. Raises `InvalidInput` for a time that no event may hold."""
        view = LeaseView(
            attempt_id=self.attempt_id,
            run_id=self.run_id,
            kind=self.kind,
            holder=self.holder,
            fence=self.fence,
            granted_at=self.granted_at,
            renewed_at=self.renewed_at,
            expires_at=self.expires_at or self.renewed_at,
            seen_at=seen_at,
            ttl_s=self.ttl_s,
            grace_s=grace_s,
            progress=self.progress,
            is_confirmed=self.is_confirmed,
            code_version=self.code_version,
            dispatch_id=self.dispatch_id,
        )
        for moment in times_of_lease(view):
            if not is_computable(moment):
                raise InvalidInput(
                    f"the lease of attempt {self.attempt_id!r}",
                    found=f"the time {moment} in its row",
                    needed=f"one from {EARLIEST} to {LATEST}",
                    do="see who wrote it: the journal writes the database's clock",
                )
        return view

    def describe(self) -> str:
        """The lease in a few words, for messages."""
        owned = self.status in (LeaseStatus.HELD, LeaseStatus.RECOVERING)
        return f"{self.status}{f' by {self.worker_id!r}' if owned else ''}, epoch {self.epoch}"


class SeenRow(LeaseRow, frozen=True, gc=False):
    """A lease row, and the time at which the statement's condition was true of it."""

    seen_at: datetime


RowT = TypeVar("RowT", bound=LeaseRow)


def read_leases(
    cursor: Cursor[DictRow], statement: str, parameters: Mapping[str, Any]
) -> list[LeaseRow]:
    """The rows of a statement that selects `COLUMNS`, in the caller's transaction."""
    return _read(cursor, statement, parameters, LeaseRow)


def read_seen(
    cursor: Cursor[DictRow], statement: str, parameters: Mapping[str, Any]
) -> list[SeenRow]:
    """The rows of a statement that selects `COLUMNS` and `seen_at`, in the caller's transaction."""
    return _read(cursor, statement, parameters, SeenRow)


def _read(
    cursor: Cursor[DictRow], statement: str, parameters: Mapping[str, Any], row_type: type[RowT]
) -> list[RowT]:
    with cursor.connection.cursor(binary=True, row_factory=args_row(row_type)) as leases:
        return leases.execute(statement, parameters).fetchall()


def by_attempt(rows: Sequence[LeaseRow]) -> dict[str, LeaseRow]:
    """The rows by their attempts."""
    return {row.attempt_id: row for row in rows}
