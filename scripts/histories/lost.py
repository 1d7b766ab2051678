"""A fleet that has just died: attempts whose leases are lost, with a saved state and a tail each.

Events, lease rows, run steps and checkpoints are those that its workers would have written: the
domain decides the events, and the digests are real. They are only written in bulk.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

from msgspec import Struct
from psycopg import Cursor, sql
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import RunStep
from recovery_journal.domain.commands.lease import confirm
from recovery_journal.domain.digest import chain_origin
from recovery_journal.domain.events import AnyEvent, LeaseGranted, WriteKind
from recovery_journal.domain.recovery import Decision, evolve
from recovery_journal.postgres.database import Database
from recovery_journal.values.payload import Payload, Value, encode
from scripts.histories.attempt import granted, run_steps
from scripts.histories.fleet import Fleet, actor
from scripts.histories.log import append
from scripts.histories.rows import add_leases, last_position, vacuum

KIND: Final = "mass-crash"
TTL_S: Final = 0.1
STATE_TEXT: Final = "x" * 976
"""Makes a saved state of 1,000 bytes."""
TAIL_STEPS: Final = 5
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

COLUMNS: Final = {
    "runs": "run_id, kind, input, input_digest",
    "checkpoints": "run_id, checkpoint_no, ordinal, chain, state, state_digest, format_version, "
    "code_version, epoch",
    "run_steps": "run_id, ordinal, name, output, chain, epoch",
}
OUTPUTS: Final = tuple(encode({"n": step}, name="output") for step in range(1, TAIL_STEPS + 1))

LAST_EPOCH: Final = "SELECT setval('epochs', %(epoch)s)"


class LostAttempt(Struct, frozen=True, kw_only=True):
    """The remains of one attempt of a dead worker."""

    granted: LeaseGranted
    confirmed: tuple[AnyEvent, ...]
    input: Payload
    state: Payload
    steps: tuple[RunStep, ...]


def fold(state: Value, _name: str, output: Value) -> Value:
    """The reducer of these runs: the sum of the outputs of their run steps."""
    return {**state, "sum": state["sum"] + output["n"]}


def fill_lost(database: Database, lease_count: int, *, kind: str = KIND, first: int = 0) -> None:
    """Lose so many attempts in a schema that holds none from the `first` number on.

    Then everything is vacuumed and analysed, as autovacuum would have done while they worked.
    """
    fleet = Fleet(first, after_epoch=first)
    at = datetime.now(UTC) - SILENT_FOR
    last = first + lease_count
    with database.transaction() as cursor:
        for start in range(first, last, CHUNK):
            numbers = range(start, min(start + CHUNK, last))
            after = last_position(cursor)
            _write(cursor, [lost_attempt(fleet, number, kind) for number in numbers])
            add_leases(cursor, after=after, last_events=["confirmed"], at=at)
        cursor.execute(LAST_EPOCH, {"epoch": last + 1})
    vacuum(database, *TABLES)


def lost_attempt(fleet: Fleet, number: int, kind: str) -> LostAttempt:
    """One attempt: granted, confirmed by its first checkpoint, five run steps after it."""
    given = encode({"number": number}, name="input")
    first = granted(
        fleet,
        attempt_id=f"attempt-{number:07}",
        run_id=f"run-{number:07}",
        input_digest=given.digest,
        kind=kind,
        ttl_s=TTL_S,
    )
    decision = Decision(event_id=fleet.name(), by=actor(first.holder))
    digests = [output.digest for output in OUTPUTS]
    origin = chain_origin(first.run_id, given.digest)
    return LostAttempt(
        granted=first,
        confirmed=confirm(evolve(None, first), decision, WriteKind.CHECKPOINT, 0),
        input=given,
        state=encode({"text": STATE_TEXT, "sum": number % 100}, name="state"),
        steps=tuple(run_steps(0, origin, digests, first.fence.epoch)),
    )


def _write(cursor: Cursor[DictRow], lost: Sequence[LostAttempt]) -> None:
    """Everything of these attempts but their lease rows, each table at once."""
    append(cursor, list(chain.from_iterable((one.granted, *one.confirmed) for one in lost)))
    _copy(cursor, "runs", map(_run, lost))
    _copy(cursor, "checkpoints", map(_checkpoint, lost))
    _copy(cursor, "run_steps", chain.from_iterable(map(_run_steps, lost)))


def _run(one: LostAttempt) -> tuple[Any, ...]:
    return one.granted.run_id, one.granted.kind, one.input.encoded, one.input.digest


def _checkpoint(one: LostAttempt) -> tuple[Any, ...]:
    run_id, state = one.granted.run_id, one.state
    saved = run_id, 1, 0, chain_origin(run_id, one.input.digest), state.encoded, state.digest
    return *saved, 1, "", one.granted.fence.epoch


def _run_steps(one: LostAttempt) -> Iterator[tuple[Any, ...]]:
    for it, output in zip(one.steps, OUTPUTS, strict=True):
        yield one.granted.run_id, it.ordinal, it.name, output.encoded, it.chain, it.epoch


def _copy(cursor: Cursor[DictRow], table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table].split(", ")))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
