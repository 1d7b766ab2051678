"""A fleet that has just died: attempts whose leases are lost, with a saved state and a tail each.

Events, lease rows, run steps and checkpoints are those that its workers would have written: the
domain decides the events, and the digests are real. They are only written in bulk.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct
from psycopg import Cursor, sql
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import RunStep
from recovery_journal.domain.commands.lease import confirm, grant
from recovery_journal.domain.digest import chain_next, chain_origin
from recovery_journal.domain.events import AnyEvent, WriteKind, tag_of
from recovery_journal.domain.lease import Actor, Fence, Holder, Incarnation
from recovery_journal.domain.recovery import Decision, evolve
from recovery_journal.postgres.database import Database
from recovery_journal.values.payload import Payload, Value, encode

KIND: Final = "mass-crash"
TTL_S: Final = 0.1
STATE_TEXT: Final = "x" * 976
"""Makes a saved state of 1,000 bytes."""
TAIL_STEPS: Final = 5
WORKERS: Final = 100
SILENT_FOR: Final = timedelta(minutes=1)
CHUNK: Final = 5_000
TABLES: Final = (
    "journal_events",
    "runs",
    "leases",
    "checkpoints",
    "run_steps",
    "projection_dispatch_ready",
)

EVENT_COLUMNS: Final = ("originator_id", "originator_version", "topic", "state")
RUN_COLUMNS: Final = ("run_id", "kind", "input", "input_digest")
CHECKPOINT_COLUMNS: Final = (
    *("run_id", "checkpoint_no", "ordinal", "chain", "state", "state_digest"),
    *("format_version", "code_version", "epoch"),
)
STEP_COLUMNS: Final = ("run_id", "ordinal", "name", "output", "chain", "epoch")

LAST_EPOCH: Final = "SELECT setval('epochs', %(epoch)s)"


class LostAttempt(Struct, frozen=True, kw_only=True):
    """What one dead worker has left of one attempt."""

    events: tuple[AnyEvent, ...]
    input: Payload
    state: Payload
    steps: tuple[RunStep, ...]
    outputs: tuple[Payload, ...]
    lease: dict[str, Any]


def fold(state: Value, _name: str, output: Value) -> Value:
    """The reducer of these runs: sums up what the run steps came to."""
    return {**state, "sum": state["sum"] + output["n"]}


def fill_lost(database: Database, lease_count: int, *, kind: str = KIND, first: int = 0) -> None:
    """Let so many attempts be lost, of a hundred workers, in a schema that holds none from the
    `first` number on. Then everything is vacuumed and analysed, as autovacuum would have done
    while they worked."""
    at = datetime.now(UTC) - SILENT_FOR
    last = first + lease_count
    with database.transaction() as cursor:
        for start in range(first, last, CHUNK):
            numbers = range(start, min(start + CHUNK, last))
            _write(cursor, [lost_attempt(number, kind, at) for number in numbers])
        cursor.execute(LAST_EPOCH, {"epoch": last + 1})
    with database.cursor() as cursor:
        cursor.execute(f"VACUUM (ANALYZE) {', '.join(TABLES)}".encode())
        cursor.execute("CHECKPOINT")


def lost_attempt(number: int, kind: str, at: datetime) -> LostAttempt:
    """One attempt: granted, confirmed by its first checkpoint, five run steps after it."""
    attempt_id, run_id = f"attempt-{number:07}", f"run-{number:07}"
    given = encode({"number": number}, name="input")
    state = encode({"text": STATE_TEXT, "sum": number % 100}, name="state")
    origin = chain_origin(run_id, given.digest)
    fence = Fence(epoch=number + 1, lease_id=uuid4().hex)
    outputs = tuple(encode({"n": step}, name="output") for step in range(1, TAIL_STEPS + 1))
    steps = tuple(_steps(origin, outputs, fence.epoch))
    holder = _holder(number % WORKERS)
    events = _events(attempt_id, run_id, holder, fence, kind, given.digest)
    lease = {
        "attempt_id": attempt_id,
        "run_id": run_id,
        "attempt_no": 1,
        "kind": kind,
        "tenant": "",
        "priority": 0,
        "code_version": "",
        "status": "held",
        "version": len(events),
        "epoch": fence.epoch,
        "lease_id": fence.lease_id,
        "worker_id": holder.worker_id,
        "host": holder.incarnation.host,
        "boot_id": holder.incarnation.boot_id,
        "pid": holder.incarnation.pid,
        "process_started": holder.incarnation.started,
        "is_confirmed": True,
        "granted_at": at,
        "renewed_at": at,
        "expires_at": at,
        "ttl_s": TTL_S,
        "ordinal": TAIL_STEPS,
        "chain": steps[-1].chain,
        "checkpoint_count": 1,
    }
    return LostAttempt(
        events=events, input=given, state=state, steps=steps, outputs=outputs, lease=lease
    )


def _steps(link: str, outputs: Sequence[Payload], epoch: int) -> Iterator[RunStep]:
    for ordinal, output in enumerate(outputs, 1):
        name = f"step-{ordinal}"
        link = chain_next(link, ordinal=ordinal, name=name, output_digest=output.digest)
        yield RunStep(
            ordinal=ordinal, name=name, output_digest=output.digest, chain=link, epoch=epoch
        )


def _holder(number: int) -> Holder:
    life = Incarnation(host=f"host-{number:03}", boot_id=f"boot-{number:03}", pid=7, started="1")
    return Holder(worker_id=f"worker-{number:03}", incarnation=life)


def _events(
    attempt_id: str, run_id: str, holder: Holder, fence: Fence, kind: str, input_digest: str
) -> tuple[AnyEvent, ...]:
    by = Actor(
        role="worker",
        host=holder.incarnation.host,
        pid=holder.incarnation.pid,
        program="recovery-journal/0.1.0",
        name=holder.worker_id,
    )
    granted = grant(
        Decision(event_id=uuid4().hex, by=by),
        attempt_id=attempt_id,
        run_id=run_id,
        holder=holder,
        fence=fence,
        ttl_s=TTL_S,
        kind=kind,
        code_version="",
        attempt_no=1,
        input_digest=input_digest,
        tenant="",
        priority=0,
        timeout_s=None,
    )
    decision = Decision(event_id=uuid4().hex, by=by)
    return granted, *confirm(evolve(None, granted), decision, WriteKind.CHECKPOINT, 0)


def _write(cursor: Cursor[DictRow], lost: Sequence[LostAttempt]) -> None:
    """Everything of these attempts, each table at once."""
    leases = [attempt.lease for attempt in lost]
    _copy(cursor, "journal_events", EVENT_COLUMNS, map(_stored, _events_of(lost)))
    _copy(cursor, "runs", RUN_COLUMNS, map(_run, lost))
    _copy(cursor, "leases", tuple(leases[0]), (tuple(lease.values()) for lease in leases))
    _copy(cursor, "checkpoints", CHECKPOINT_COLUMNS, map(_checkpoint, lost))
    _copy(cursor, "run_steps", STEP_COLUMNS, chain.from_iterable(map(_run_steps, lost)))


def _copy(
    cursor: Cursor[DictRow], table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _events_of(lost: Sequence[LostAttempt]) -> Iterator[AnyEvent]:
    return chain.from_iterable(attempt.events for attempt in lost)


def _stored(event: AnyEvent) -> tuple[Any, ...]:
    state = msgspec.json.encode(event)
    return event.originator_id, event.originator_version, tag_of(event), state


def _run(lost: LostAttempt) -> tuple[Any, ...]:
    return lost.lease["run_id"], lost.lease["kind"], lost.input.encoded, lost.input.digest


def _checkpoint(lost: LostAttempt) -> tuple[Any, ...]:
    run_id, epoch = lost.lease["run_id"], lost.lease["epoch"]
    origin = chain_origin(run_id, lost.input.digest)
    return run_id, 1, 0, origin, lost.state.encoded, lost.state.digest, 1, "", epoch


def _run_steps(lost: LostAttempt) -> Iterator[tuple[Any, ...]]:
    for step, output in zip(lost.steps, lost.outputs, strict=True):
        recorded = step.ordinal, step.name, output.encoded, step.chain, step.epoch
        yield lost.lease["run_id"], *recorded
