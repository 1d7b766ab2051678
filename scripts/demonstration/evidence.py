"""All that the proof rests on, gathered after all processes have ended."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from psycopg.sql import SQL, Identifier

import recovery_journal as rj
from recovery_journal import events
from scripts.demonstration.acts import DISTURBED, UNDISTURBED, Plan, Struck, Waking
from scripts.demonstration.job import Executions

# All but how far each has come, which is no row of theirs.
TABLES: Final = """
SELECT tablename AS name
FROM pg_tables
WHERE schemaname = %(schema)s
    AND tablename LIKE 'projection\\_%%'
    AND tablename <> 'projection_tracking'
ORDER BY 1
"""

ROWS: Final = SQL("""
SELECT count(*) AS row_count,
    'sha256:' || encode(
        sha256(convert_to(coalesce(string_agg(line, chr(10) ORDER BY line), ''), 'UTF8')), 'hex'
    ) AS digest
FROM (SELECT to_jsonb(it)::text AS line FROM {} AS it) AS lines
""")

DROP: Final = SQL("DROP TABLE {}")


class TableRows(Struct, frozen=True, kw_only=True):
    """All rows of one table, as a count and a digest."""

    table: str
    row_count: int
    digest: str


class Rebuilt(Struct, frozen=True, kw_only=True):
    """The rows of all projections before their tables were dropped, how many tables were left
    then, and the rows after everything was rebuilt from the log's events."""

    before: tuple[TableRows, ...]
    left_count: int
    after: tuple[TableRows, ...]
    event_count: int


def drop_and_rebuild(journal: rj.Journal) -> Rebuilt:
    """Drop every projection's table, and let the journal rebuild all of them. The log stays: its
    own triggers would refuse a change."""
    before = all_rows(journal)
    with journal.database.cursor() as cursor:
        for table in tables(journal):
            cursor.execute(DROP.format(Identifier(table)))
    left_count = len(tables(journal))
    event_count = journal.rebuild().event_count
    return Rebuilt(
        before=before, left_count=left_count, after=all_rows(journal), event_count=event_count
    )


def all_rows(journal: rj.Journal) -> tuple[TableRows, ...]:
    """Every projection's rows, read without the help of the program that made them."""
    found = []
    with journal.database.cursor() as cursor:
        for table in tables(journal):
            row = cursor.execute(ROWS.format(Identifier(table))).fetchone()
            found.append(TableRows(table=table, **(row or {})))
    return tuple(found)


def tables(journal: rj.Journal) -> list[str]:
    """The tables of the projections that are there now."""
    with journal.database.cursor() as cursor:
        found = cursor.execute(TABLES, {"schema": journal.database.schema}).fetchall()
    return [row["name"] for row in found]


class Refusal(Struct, frozen=True, kw_only=True):
    """A write that the journal refused: which, under which epoch, and its position in the log."""

    write: str
    epoch: int
    position: int


class Evidence(Struct, frozen=True, kw_only=True):
    """The findings in the log, in the projections and in the world.

    `recoveries` are the rows of the disturbed attempt, the first loss first, and `losses` the
    events of these losses, by recovery number. `resumed_after` are the ordinals already recorded at
    each dispatch, from the log. `executions` are the ordinals that each process has executed.
    """

    file_count: int
    checkpoint_every: int
    undisturbed_digest: str
    disturbed_digest: str
    struck: tuple[Struck, ...]
    recoveries: tuple[rj.RecoveryContextRow, ...]
    losses: dict[int, events.LeaseExpired]
    resumed_after: tuple[int, ...]
    executions: tuple[tuple[int, ...], ...]
    waking: Waking
    refusals: tuple[Refusal, ...]
    completed_position: int
    rebuilt: Rebuilt


def gather(
    journal: rj.Journal, plan: Plan, struck: Sequence[Struck], waking: Waking, rebuilt: Rebuilt
) -> Evidence:
    """Read the journal, and the executions of which it knows nothing."""
    log = journal.history(DISTURBED)
    resumed_after, refusals, to_ordinal, completed_position = [], [], 0, 0
    for entry in log:
        match entry.event:
            case events.Replayed(to_ordinal=to_ordinal):
                pass
            case events.Dispatched():
                resumed_after.append(to_ordinal)
            case events.StaleWriteRefused(write=write, fence=fence):
                refusals.append(Refusal(write=write, epoch=fence.epoch, position=entry.position))
            case events.LeaseEnded():
                completed_position = entry.position
    losses = [it.event for it in log if isinstance(it.event, events.LeaseExpired)]
    return Evidence(
        file_count=plan.file_count,
        checkpoint_every=plan.given["checkpoint_every"],
        undisturbed_digest=result_digest(journal, UNDISTURBED),
        disturbed_digest=result_digest(journal, DISTURBED),
        struck=tuple(struck),
        recoveries=tuple(reversed(journal.contexts(attempt_id=DISTURBED))),
        losses={it.recovery_no: it for it in losses},
        resumed_after=tuple(resumed_after),
        executions=tuple(Executions(plan.executions).of(DISTURBED).values()),
        waking=waking,
        refusals=tuple(refusals),
        completed_position=completed_position,
        rebuilt=rebuilt,
    )


def result_digest(journal: rj.Journal, attempt_id: str) -> str:
    """The digest of an attempt's result, from its last event."""
    return str(getattr(journal.recovery(attempt_id).ended, "result_digest", None))
