"""A claim as a script of pgbench's: our own statements, their parameters named in its way.

The journal's COPY is an INSERT, which pgbench can send; and the values that the journal computes
between the statements are in them: the next versions, the list's rows, constants for the rest.
"""

# ruff: noqa: SLF001 - our own statements, to be sent by another program
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from recovery_journal.claiming.claims import LOCK_READY
from recovery_journal.domain.events import Dispatched, tag_of
from recovery_journal.limits import DEFAULTS
from recovery_journal.log.streams import STREAMS
from recovery_journal.postgres.database import ONE_SNAPSHOT
from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.read_models.following.inline import UNSEEN, InlineRows
from recovery_journal.read_models.tables.projection_table import table_of
from recovery_journal.store.move import MOVE
from recovery_journal.store.tips import ANNOUNCED, INLINE_BYTES, NEWEST_CHECKPOINTS, TAILS

TAG: Final = tag_of(Dispatched)
STATE: Final = next(
    msgspec.json.encode(record.event) for record in corpus() if isinstance(record.event, Dispatched)
)
"""The event of a claim: its tag, and its state as it is stored."""

# One row, so that pgbench can keep it.
TAKEN: Final = """
WITH taken AS ({take})
SELECT array_agg(attempt_id)::text AS attempt_id,
    array_agg(run_id)::text AS run_ids,
    array_agg(version + 1)::text AS version,
    array_agg(version)::text AS seen,
    array_agg(recovery_no)::text AS recovery_no,
    array_fill('new-worker'::text, ARRAY[count(*)::int])::text AS worker_id,
    array_fill('held'::text, ARRAY[count(*)::int])::text AS status,
    array_fill(gen_random_uuid()::text, ARRAY[count(*)::int])::text AS lease_id,
    array_fill(1, ARRAY[count(*)::int])::text AS pid,
    array_fill(600, ARRAY[count(*)::int])::text AS lasts_s,
    array_fill(NULL::text, ARRAY[count(*)::int])::text AS retry_at,
    array_fill(false, ARRAY[count(*)::int])::text AS is_confirmed,
    array_agg(new_epoch)::text AS epoch,
    array_fill(0, ARRAY[count(*)::int])::text AS ordinals,
    count(*) AS count
FROM taken
"""

APPEND: Final = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT attempt_id, version, '{tag}', '\\x{state}'::bytea
FROM unnest((:attempt_id)::text[], (:version)::bigint[]) AS event(attempt_id, version)
"""

LIST: Final = """
SELECT json_agg(left_by)::text AS rows
FROM (
    SELECT attempt_id, version + 1 AS version, entered_version, run_id, recovery_no, attempt_no,
        kind, tenant, priority, ready_at, not_before, code_version, start, in_doubt,
        entered_position, entered_position + 1 AS left_position, ready_at AS left_at,
        'dispatched' AS left_because
    FROM unnest((:attempt_id)::text[]) AS wanted(attempt_id)
    JOIN projection_dispatch_ready USING (attempt_id)
) AS left_by
"""


def claim_script() -> str:
    """The script; it wants `limit`, how many attempts a claim takes."""
    table, inline = table_of(DISPATCH_READY), InlineRows(DISPATCH_READY)
    every = dict.fromkeys(("attempt_ids", "kinds", "tenants", "code_versions"), "NULL")
    move = dict.fromkeys(("host", "boot_id", "process_started", "code_version"), ":worker_id")
    move |= {"dispatch_id": ":lease_id", "ttl_s": ":lasts_s"}
    move |= dict.fromkeys(("is_deadline_waived", "has_ended"), ":is_confirmed")
    sizes = {"inline_bytes": str(INLINE_BYTES), "limit_bytes": str(DEFAULTS.state_bytes)}
    unseen = {"streams": ":attempt_id", "versions": ":seen", "own": ":version"}
    lines = [
        "BEGIN;",
        _kept(TAKEN.format(take=_of_pgbench(LOCK_READY, every))),
        _sent(STREAMS, streams=":attempt_id"),
        _sent(APPEND.format(tag=TAG, state=STATE.hex())),
        _sent(MOVE, **move),
        _sent(inline._are_ours_sql),
        _sent(table._newest_sql, keys=":attempt_id"),
        _sent(UNSEEN, **unseen, tags="ARRAY['dispatched']"),
        _kept(LIST),
        _sent(table._upsert_sql),
        "COMMIT;",
        "BEGIN;",
        _sent(ONE_SNAPSHOT),
        _sent(NEWEST_CHECKPOINTS, **sizes),
        _sent(TAILS, **sizes),
        _sent(ANNOUNCED),
        "COMMIT;",
    ]
    return "\n".join(lines)


def _sent(statement: str | bytes, **values: str) -> str:
    """A statement whose answer is thrown away."""
    return f"{_of_pgbench(statement, values).strip()};"


def _kept(statement: str) -> str:
    """A statement whose one row becomes variables."""
    return f"{_of_pgbench(statement, {}).strip()}\n\\gset"


def _of_pgbench(statement: str | bytes, values: Mapping[str, str]) -> str:
    """Our parameters in pgbench's way: with these values, or as variables of the same name."""
    text = statement.decode() if isinstance(statement, bytes) else statement
    return re.sub(r"%\((\w+)\)s", lambda it: values.get(it[1], f":{it[1]}"), text)
