"""Where the lease rows and the log differ.

One backup, dump or standby shows both as of one moment, and then they agree. A database that was
assembled from several of them, table by table, may differ.
"""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

# The query finds the ends of streams by their index, one lookup for each lease; it reads the whole
# log only for first events, whose leases may be missing. During a recovery the row may not know the
# steps since the loss: these do not change it.
COMPARE: Final = """
SELECT leases.attempt_id,
    leases.run_id,
    CASE
        WHEN stream.version IS NULL THEN 'lease_only'
        WHEN leases.version > stream.version THEN 'lease_ahead'
        ELSE 'log_ahead'
    END AS kind,
    leases.status AS lease_status,
    leases.version AS lease_version,
    coalesce(stream.version, 0) AS log_version
FROM leases
LEFT JOIN LATERAL (
    SELECT max(originator_version) AS version
    FROM journal_events
    WHERE originator_id = leases.attempt_id
) AS stream ON true
WHERE leases.version IS DISTINCT FROM stream.version
    AND NOT (
        leases.status = 'recovering'
        AND leases.version < coalesce(stream.version, 0)
        AND NOT EXISTS (
            SELECT
            FROM journal_events
            WHERE originator_id = leases.attempt_id
                AND originator_version > leases.version
                AND topic NOT IN ('checkpoint-reloaded', 'replayed')
        )
    )
UNION ALL
SELECT originator_id,
    journal_event_json(state) ->> 'run_id',
    'log_only',
    NULL,
    0,
    (
        SELECT max(originator_version)
        FROM journal_events AS later
        WHERE later.originator_id = events.originator_id
    )
FROM journal_events AS events
WHERE originator_version = 1
    AND originator_id <> ''
    AND NOT EXISTS (SELECT FROM leases WHERE attempt_id = events.originator_id)
ORDER BY 1
"""


class DifferenceKind(StrEnum):
    """Which of the two knows more of an attempt."""

    LEASE_AHEAD = "lease_ahead"
    LOG_AHEAD = "log_ahead"
    LEASE_ONLY = "lease_only"
    LOG_ONLY = "log_only"


class Difference(Struct, frozen=True, kw_only=True):
    """One attempt of which the lease row knows another number of events than the log holds; 0 where
    one of them does not know the attempt. The lease's status is as it was found."""

    attempt_id: str
    run_id: str | None
    kind: DifferenceKind
    lease_status: str | None
    lease_version: int
    log_version: int

    def __str__(self) -> str:
        return (
            f"attempt {self.attempt_id}: the lease knows {self.lease_version} events, "
            f"the log {self.log_version}"
        )


def differences(cursor: Cursor[DictRow]) -> tuple[Difference, ...]:
    """All differences, in order of attempt. Reads the log once."""
    return msgspec.convert(cursor.execute(COMPARE).fetchall(), tuple[Difference, ...])
