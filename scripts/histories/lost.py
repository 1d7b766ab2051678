"""A fleet that has just died: attempts whose leases are lost, with a saved state and a tail each.

Events, lease rows, run steps and checkpoints are those that its workers would have written: the
domain decides the events, and the digests are real. They are only written in bulk.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg import Cursor, sql
from psycopg.rows import DictRow

from recovery_journal.domain.commands.lease import confirm
from recovery_journal.domain.digest import chain_origin
from recovery_journal.domain.events import AnyEvent, WriteKind
from recovery_journal.domain.recovery import Decision, evolve
from recovery_journal.postgres.database import Database
from recovery_journal.values.payload import Value, encode
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
            _write(cursor, fleet, numbers, kind)
            add_leases(cursor, after=after, last_events=["confirmed"], at=at)
        cursor.execute(LAST_EPOCH, {"epoch": last + 1})
    vacuum(database, *TABLES)


def _write(cursor: Cursor[DictRow], fleet: Fleet, numbers: range, kind: str) -> None:
    """Everything of these attempts but their lease rows, each table at once: granted, confirmed by
    their first checkpoint, five run steps after it."""
    events: list[AnyEvent] = []
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
    for number in numbers:
        given = encode({"number": number}, name="input")
        state = encode({"text": STATE_TEXT, "sum": number % 100}, name="state")
        first = granted(
            fleet,
            attempt_id=f"attempt-{number:07}",
            run_id=f"run-{number:07}",
            input_digest=given.digest,
            kind=kind,
            ttl_s=TTL_S,
        )
        decision = Decision(event_id=fleet.name(), by=actor(first.holder))
        events += [first, *confirm(evolve(None, first), decision, WriteKind.CHECKPOINT, 0)]
        run_id, epoch = first.run_id, first.fence.epoch
        origin = chain_origin(run_id, given.digest)
        saved = run_id, 1, 0, origin, state.encoded, state.digest, 1, "", epoch
        rows["runs"].append((run_id, kind, given.encoded, given.digest))
        rows["checkpoints"].append(saved)
        steps = run_steps(0, origin, [it.digest for it in OUTPUTS], epoch)
        rows["run_steps"] += [
            (run_id, it.ordinal, it.name, output.encoded, it.chain, epoch)
            for it, output in zip(steps, OUTPUTS, strict=True)
        ]
    append(cursor, events)
    for table, found in rows.items():
        _copy(cursor, table, found)


def _copy(cursor: Cursor[DictRow], table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table].split(", ")))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
