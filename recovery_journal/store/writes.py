"""A worker's writes under its fence (rule R7), each one statement or one transaction.

Each write first locks the lease row by attempt, lease id, epoch and status `held`: the UPDATE that
opens each statement takes the same row lock as FOR NO KEY UPDATE, waits for its present holder, and
then evaluates its condition again on the row's newest version. The write itself reads from that
UPDATE's answer, so without the lock there is nothing to insert. Each write renews the lease.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from msgspec import UNSET, Struct, UnsetType
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import FORMAT_VERSION
from recovery_journal.domain.commands.lease import confirm, refuse
from recovery_journal.domain.errors import (
    AppendBlocked,
    LeaseLost,
    Retry,
    ServerUnavailable,
    StepOutOfOrder,
    StreamUnusable,
    UnknownAttempt,
)
from recovery_journal.domain.events import WriteKind
from recovery_journal.domain.lease import Fence
from recovery_journal.domain.recovery import Decision
from recovery_journal.log.open_writers import appending_briefly
from recovery_journal.postgres.database import Database
from recovery_journal.process.back_off import BackOff
from recovery_journal.process.identity import actor
from recovery_journal.store.lease_row import LeaseRow, read_lease
from recovery_journal.store.ledger import Ledger
from recovery_journal.values.payload import Payload

HELD = """
attempt_id = %(attempt_id)s
    AND lease_id = %(lease_id)s
    AND epoch = %(epoch)s
    AND status = 'held'
"""

RENEWED = """
renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => ttl_s)
"""

HEARTBEAT = f"""
UPDATE leases
SET session_lock = CASE WHEN %(is_declared)s THEN %(session_lock)s ELSE session_lock END,
    {RENEWED}
WHERE {HELD}
RETURNING expires_at, ordinal, checkpoint_count
"""

ANNOUNCE = f"""
WITH held AS (
    UPDATE leases
    SET {RENEWED}
    WHERE {HELD} AND ordinal = %(ordinal)s - 1
    RETURNING run_id, expires_at
), announced AS (
    INSERT INTO announcements (run_id, ordinal, name, epoch)
    SELECT run_id, %(ordinal)s, %(name)s, %(epoch)s
    FROM held
    ON CONFLICT (run_id, ordinal) DO UPDATE
    SET name = excluded.name, epoch = excluded.epoch, announced_at = clock_timestamp()
)
SELECT expires_at FROM held
"""

RECORD = f"""
WITH held AS (
    UPDATE leases
    SET ordinal = %(ordinal)s,
        chain = %(chain)s,
        {RENEWED}
    WHERE {HELD} AND ordinal = %(ordinal)s - 1 AND chain = %(previous_chain)s
    RETURNING run_id, expires_at
), recorded AS (
    INSERT INTO run_steps (run_id, ordinal, name, output, chain, epoch)
    SELECT run_id, %(ordinal)s, %(name)s, %(output)s, %(chain)s, %(epoch)s
    FROM held
)
SELECT expires_at FROM held
"""

SAVE = f"""
WITH held AS (
    UPDATE leases
    SET checkpoint_count = %(checkpoint_no)s,
        {RENEWED}
    WHERE {HELD} AND ordinal = %(ordinal)s AND checkpoint_count = %(checkpoint_no)s - 1
    RETURNING run_id, code_version, chain, expires_at
), saved AS (
    INSERT INTO checkpoints (
        run_id, checkpoint_no, ordinal, chain, state, state_digest, format_version, code_version,
        epoch
    )
    SELECT run_id, %(checkpoint_no)s, %(ordinal)s, chain, %(state)s, %(state_digest)s,
        %(format_version)s, code_version, %(epoch)s
    FROM held
)
SELECT expires_at FROM held
"""

STEP_AT = """
SELECT chain AS digest, epoch
FROM run_steps
WHERE run_id = %(run_id)s AND ordinal = %(ordinal)s
"""

CHECKPOINT_AT = """
SELECT state_digest AS digest, epoch
FROM checkpoints
WHERE run_id = %(run_id)s AND checkpoint_no = %(checkpoint_no)s
"""


Answer = TypeVar("Answer")


class Held(Struct, frozen=True, kw_only=True):
    """The lease under which a write is made.

    With `patience_s`, run steps and checkpoints are tried for that long while the server is away or
    refuses them for now. A write whose reply was lost is recognized by ordinal, chain and epoch, so
    each happens once.
    """

    attempt_id: str
    run_id: str
    worker_id: str
    fence: Fence
    is_confirmed: bool
    patience_s: float = 0.0

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {
            "attempt_id": self.attempt_id,
            "run_id": self.run_id,
            "lease_id": self.fence.lease_id,
            "epoch": self.fence.epoch,
        }


class Renewal(Struct, frozen=True, kw_only=True):
    """A heartbeat's answer: until when the lease holds, and how far the run has come."""

    expires_at: datetime
    ordinal: int
    checkpoint_count: int


class LeaseWrites:
    """The writes of a worker during its work. A write whose fence is void raises `LeaseLost`."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def heartbeat(self, held: Held, session_lock: int | UnsetType | None = UNSET) -> Renewal:
        """Renew the lease, and declare the session lock whose end is its worker's death."""
        is_declared = session_lock is not UNSET
        declared = {
            "is_declared": is_declared,
            "session_lock": session_lock if is_declared else None,
        }
        row = retry(partial(self._execute, HEARTBEAT, {**held.parameters, **declared}))
        if row is None:
            raise refusal(self._database, self._ledger, held, WriteKind.HEARTBEAT)
        return Renewal(**row)

    def announce(self, held: Held, *, ordinal: int, name: str) -> None:
        """Announce that a run step is about to have its effect."""
        values = {**held.parameters, "ordinal": ordinal, "name": name}
        if retry(partial(self._execute, ANNOUNCE, values), patience_s=held.patience_s) is None:
            self._explain(held, WriteKind.ANNOUNCEMENT, f"announce run step {ordinal}")

    def record(
        self, held: Held, *, ordinal: int, name: str, output: Payload, before: str, chain: str
    ) -> None:
        """Record a run step's output, extending the run's chain from `before` to `chain`."""
        step = {
            **held.parameters,
            "ordinal": ordinal,
            "name": name,
            "output": output.encoded,
            "previous_chain": before,
            "chain": chain,
        }
        if not self._write(held, WriteKind.RUN_STEP, RECORD, step):
            self._explain(
                held, WriteKind.RUN_STEP, f"record run step {ordinal}", done=(STEP_AT, step, chain)
            )

    def save(self, held: Held, *, checkpoint_no: int, ordinal: int, state: Payload) -> None:
        """Save a state as the run's newest checkpoint."""
        checkpoint = {
            **held.parameters,
            "checkpoint_no": checkpoint_no,
            "ordinal": ordinal,
            "state": state.encoded,
            "state_digest": state.digest,
            "format_version": FORMAT_VERSION,
        }
        if not self._write(held, WriteKind.CHECKPOINT, SAVE, checkpoint):
            self._explain(
                held,
                WriteKind.CHECKPOINT,
                f"save checkpoint {checkpoint_no}",
                done=(CHECKPOINT_AT, checkpoint, state.digest),
            )

    def _write(self, held: Held, write: WriteKind, statement: str, values: dict[str, Any]) -> bool:
        """One statement; the first under a fence in one transaction with its `Confirmed`."""
        if held.is_confirmed:
            call = partial(self._execute, statement, values)
            return retry(call, patience_s=held.patience_s) is not None

        def confirming() -> bool:
            with self._database.transaction() as cursor:
                if cursor.execute(statement, values).fetchone() is None:
                    return False
                [locked] = self._ledger.lock(cursor, [held.attempt_id])
                decision = worker_decision(held)
                self._ledger.decide_one(
                    cursor,
                    locked,
                    lambda it, _: confirm(it, decision, write, values["ordinal"]),
                )
            return True

        return retry(confirming, patience_s=held.patience_s)

    def _execute(self, statement: str, values: dict[str, Any]) -> DictRow | None:
        with self._database.cursor() as cursor:
            return cursor.execute(statement, values).fetchone()

    def _read(self, attempt_id: str) -> LeaseRow | None:
        with self._database.cursor() as cursor:
            return read_lease(cursor, attempt_id)

    def _explain(
        self,
        held: Held,
        write: WriteKind,
        wanted: str,
        done: tuple[str, dict[str, Any], str] | None = None,
    ) -> None:
        """Why a write found no row: the fence is void, it was done before, or it is out of order.

        It was done before where a reply was lost: the same content is stored under this lease's
        epoch.
        """
        row = retry(partial(self._read, held.attempt_id), patience_s=held.patience_s)
        if row is None or not row.is_held_under(held.fence):
            raise refusal(self._database, self._ledger, held, write)
        if done is not None:
            question, values, digest = done
            found = retry(partial(self._execute, question, values), patience_s=held.patience_s)
            if found and (found["digest"], found["epoch"]) == (digest, held.fence.epoch):
                return
        raise StepOutOfOrder(
            held.run_id,
            wanted=wanted,
            found=f"run step {row.ordinal} and checkpoint {row.checkpoint_count} as the last",
            needed="the next in order, written through one lease handle",
            do="do not share a lease between threads or processes that both write",
        )


def retry(call: Callable[[], Answer], *, patience_s: float = 0.0) -> Answer:
    """Retry once after a lost reply - and for so many seconds, with pauses, while the server is
    away or refuses the call for now. The call must be idempotent."""
    try:
        return call()
    except ServerUnavailable:
        pass
    except Retry:
        if not patience_s:
            raise
    deadline = time.monotonic() + patience_s
    back_off = BackOff()
    while True:
        try:
            return call()
        except Retry:
            if time.monotonic() >= deadline:
                raise
        time.sleep(back_off.pause_s())


def worker_decision(held: Held, reason: str = "") -> Decision:
    """A new decision of this lease's worker."""
    return Decision(event_id=uuid4().hex, by=actor("worker", held.worker_id), reason=reason)


def refusal(database: Database, ledger: Ledger, held: Held, write: WriteKind) -> LeaseLost:
    """Record that a fenced-out worker tried to write, and make the error to raise."""

    def once() -> LeaseLost:
        with database.transaction() as cursor:
            locked = ledger.lock_one(cursor, held.attempt_id)
            # There may be no stream: the attempt began in a future that a restore has undone. And a
            # stream that cannot be decided on, or appended to, takes no event; the lease is void
            # all the same.
            with suppress(UnknownAttempt, StreamUnusable, AppendBlocked):
                if locked:
                    decision = worker_decision(held)
                    with appending_briefly(cursor, held.attempt_id):
                        ledger.decide_one(
                            cursor,
                            locked,
                            lambda it, _: refuse(it, decision, write, held.fence),
                        )
        return LeaseLost(
            held.attempt_id,
            operation=write.value.replace("_", " "),
            epoch=held.fence.epoch,
            found=locked.row.describe() if locked else "no such attempt, as after a restore",
        )

    return retry(once)
