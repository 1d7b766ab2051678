"""A lease row: the store's state of one attempt, read by name."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from os import urandom
from typing import Any, Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow, args_row, tuple_row

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
from recovery_journal.log.open_writers import BRIEF

LEASE_ID_BYTES: Final = 16


class LeaseRow(Struct, frozen=True, gc=False):
    """One row of `leases`, without its payloads. Times are the database's."""

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

    @property
    def fence(self) -> Fence:
        """The fence that a write must match."""
        return Fence(epoch=self.epoch, lease_id=self.lease_id)

    def is_held_under(self, fence: Fence) -> bool:
        """Whether a worker holds the lease under this fence."""
        return self.status == LeaseStatus.HELD and self.fence == fence

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


COLUMNS: Final = ", ".join(LeaseRow.__struct_fields__)
"""The columns that are read: the fields, in their order."""


BRIEFLY: Final = f"SELECT set_config('lock_timeout', '{BRIEF}', true)"

FIND_LEASE: Final = f"SELECT {COLUMNS} FROM leases WHERE attempt_id = %(attempt_id)s"


class LockedLease(Struct, frozen=True, gc=False):
    """A lease row that this transaction has locked, the time just after that, and a new fence that
    was drawn for it: its epoch is larger than any before."""

    row: LeaseRow
    seen_at: datetime
    new_fence: Fence


def locking(selection: str, *, is_brief: bool = False) -> str:
    """The statement for `lock_leases` of a selection of `COLUMNS` that locks its rows. Epoch and
    time are drawn for the locked rows, after their locks. With `is_brief`, for selections that wait
    for no lock, the rest of the transaction waits only briefly for locks."""
    patience = f"\nCROSS JOIN ({BRIEFLY}) AS patience" if is_brief else ""
    return f"""
SELECT {COLUMNS}, clock_timestamp() AS seen_at, nextval('epochs') AS new_epoch
FROM (
{selection.strip()}
) AS locked{patience}
"""


def lock_leases(
    cursor: Cursor[DictRow], statement: str, parameters: Mapping[str, Any]
) -> list[LockedLease]:
    """Lock the rows of a `locking` statement, in the caller's transaction; in their order."""
    with cursor.connection.cursor(binary=True, row_factory=tuple_row) as leases:
        rows = leases.execute(statement, parameters).fetchall()
    fences = new_fences([row[-1] for row in rows])
    return [
        LockedLease(LeaseRow(*row[:-2]), row[-2], fence)
        for row, fence in zip(rows, fences, strict=True)
    ]


def read_leases(
    cursor: Cursor[DictRow], statement: str, parameters: Mapping[str, Any]
) -> dict[str, LeaseRow]:
    """The rows of a statement that selects `COLUMNS`, by attempt and in their order."""
    with cursor.connection.cursor(binary=True, row_factory=args_row(LeaseRow)) as leases:
        return {row.attempt_id: row for row in leases.execute(statement, parameters)}


def new_fences(epochs: Sequence[int]) -> list[Fence]:
    """Fences of epochs that were drawn just now, each with a random id."""
    drawn = urandom(LEASE_ID_BYTES * len(epochs)).hex()
    size = 2 * LEASE_ID_BYTES
    return [
        Fence(epoch=epoch, lease_id=drawn[at * size : (at + 1) * size])
        for at, epoch in enumerate(epochs)
    ]


def read_lease(cursor: Cursor[DictRow], attempt_id: str) -> LeaseRow | None:
    """One lease row, without locking it; None where there is none."""
    return read_leases(cursor, FIND_LEASE, {"attempt_id": attempt_id}).get(attempt_id)
