"""The traces of a history beside the log: runs, lease rows, projections.

They are made from the log itself, one for each attempt of ours whose last event is of a certain
type. The lease of a false alarm is a foreign runtime's, which keeps it itself; the few attempts
that are under way where a long log ends are left out.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.journal import Journal
from recovery_journal.postgres.database import Database, one
from scripts.histories.attempt import Attempt
from scripts.histories.fleet import Fleet
from scripts.histories.log import append_all, fill

FINISHED: Final = ("lease-ended", "quarantined")

# Streams that began after a position, each with its first and its last event.
STREAMS: Final = """
CREATE TEMPORARY TABLE histories AS
SELECT first.originator_id AS attempt_id,
    convert_from(first.state, 'UTF8')::jsonb AS granted,
    last.topic AS topic,
    last.originator_version AS version,
    last.recorded_at AS recorded_at
FROM journal_events AS first
CROSS JOIN LATERAL (
    SELECT topic, originator_version, recorded_at
    FROM journal_events
    WHERE originator_id = first.originator_id
    ORDER BY originator_version DESC
    LIMIT 1
) AS last
WHERE first.originator_version = 1
    AND first.notification_id > %(after)s
    AND last.topic = ANY(%(last_events)s::text[])
"""

RUNS: Final = """
INSERT INTO runs (run_id, kind, input, input_digest)
SELECT granted ->> 'run_id', granted ->> 'kind', '{}', granted ->> 'input_digest'
FROM histories
"""

LEASES: Final = """
INSERT INTO leases (
    attempt_id, run_id, attempt_no, kind, tenant, priority, code_version, status, version, epoch,
    lease_id, worker_id, host, boot_id, pid, process_started, is_confirmed, granted_at, renewed_at,
    expires_at, ttl_s, ended_at, ordinal, chain, checkpoint_count, dispatch_id
)
SELECT attempt_id, first.run_id, 1, kind, tenant, priority, code_version,
    CASE topic
        WHEN 'lease-ended' THEN 'completed'
        WHEN 'quarantined' THEN 'quarantined'
        ELSE 'held'
    END,
    version, epoch, lease_id, worker_id, host, boot_id, pid, started, true,
    coalesce(%(at)s, recorded_at), coalesce(%(at)s, recorded_at), %(at)s::timestamptz, ttl_s,
    CASE topic WHEN 'lease-ended' THEN recorded_at END,
    5, coalesce(
        (SELECT chain FROM run_steps AS it WHERE it.run_id = first.run_id AND it.ordinal = 5),
        input_digest
    ), 1, lease_id
FROM histories
CROSS JOIN LATERAL jsonb_to_record(
    granted || (granted -> 'fence') || (granted -> 'holder') || (granted #> '{holder,incarnation}')
) AS first(
    run_id text, kind text, tenant text, priority integer, code_version text, input_digest text,
    epoch bigint, lease_id text, worker_id text, host text, boot_id text, pid bigint, started text,
    ttl_s double precision
)
"""

# Attempts on the list where the log ends have no lease row, and so may not be there.
LEAVE: Final = """
UPDATE projection_dispatch_ready
SET left_position = entered_position + 1
WHERE left_position IS NULL
"""

LAST_POSITION: Final = """
SELECT coalesce(max(notification_id), 0) AS position
FROM journal_events
"""

# Equally long ones: a short log has more of those that have only begun.
SAMPLE: Final = """
SELECT originator_id AS attempt_id
FROM journal_events
WHERE notification_id = ANY(%(positions)s::bigint[])
    AND topic = 'lease-ended'
    AND originator_version = 9
LIMIT %(limit)s
"""


def grow(dsn: str, database: Database, event_count: int) -> None:
    """Let the log grow to so many events, and all else with it."""
    with database.cursor() as cursor:
        before = last_position(cursor)
    missing = event_count - before
    if missing > 0:
        # Another seed for each stretch: the same one would make the same attempts again.
        fill(dsn, database.schema, event_count=missing, seed=event_count)
    add_finished(database, after=before)
    with database.cursor() as cursor:
        cursor.execute(LEAVE)
    # Of everything: else autovacuum would do it while something is measured.
    vacuum(database)


def add_finished(database: Database, *, after: int) -> None:
    """Make runs, lease rows and projections of the attempts that began after a position and are
    finished."""
    with database.transaction() as cursor:
        add_leases(cursor, after=after, last_events=FINISHED, at=None, has_runs=False)
    Journal(database).rebuild()


def add_leases(
    cursor: Cursor[DictRow],
    *,
    after: int,
    last_events: Sequence[str],
    at: datetime | None,
    has_runs: bool = True,
) -> None:
    """Make lease rows of the attempts that began after a position and whose last event is one of
    these types, renewed for the last time at this time; and their runs, unless they have them."""
    cursor.execute(STREAMS, {"after": after, "last_events": list(last_events)})
    if not has_runs:
        cursor.execute(RUNS)
    cursor.execute(LEASES, {"at": at})
    cursor.execute("DROP TABLE histories")


def vacuum(database: Database, *tables: str) -> None:
    """Vacuum and analyse these tables, or all of them, and write a checkpoint of the server."""
    with database.cursor() as cursor:
        cursor.execute(f"VACUUM (ANALYZE) {', '.join(tables)}".encode())
        cursor.execute("CHECKPOINT")


def last_position(cursor: Cursor[DictRow]) -> int:
    """The number of the newest event, which is nearly how many there are."""
    return int(one(cursor.execute(LAST_POSITION))["position"])


def attempts_at(database: Database, positions: list[int], *, limit: int) -> list[str]:
    """Attempts that were lost once and then completed, at one of these positions."""
    with database.cursor() as cursor:
        rows = cursor.execute(SAMPLE, {"positions": positions, "limit": limit}).fetchall()
    return [row["attempt_id"] for row in rows]


SEED: Final = 1


def make_past(dsn: str, schema: str, attempt_count: int) -> None:
    """So many finished attempts in the empty journal of a schema."""
    fleet = Fleet(SEED)
    stories = (Attempt(fleet).lost_once() for _ in range(attempt_count))
    append_all(dsn, schema, chain.from_iterable(stories))
    database = Database(dsn, schema)
    add_finished(database, after=0)
    vacuum(database)
    database.close()
