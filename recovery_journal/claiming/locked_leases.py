"""The ready leases that a claim locks: in the order of the list, skipping those that others have
locked."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row

from recovery_journal.domain.lease import Fence, Holder
from recovery_journal.log.open_writers import BRIEF
from recovery_journal.store.lease import LeaseTerms
from recovery_journal.store.lease_row import COLUMNS, LeaseRow
from recovery_journal.store.tips import read_sizes

QUALIFIED = ", ".join(f"leases.{column}" for column in COLUMNS.split(", "))

READY = """
projection_dispatch_ready AS listed
JOIN leases USING (attempt_id)
WHERE listed.left_position IS NULL
    AND leases.status = 'ready'
    AND (listed.not_before IS NULL OR listed.not_before <= clock_timestamp())
    AND (leases.retry_at IS NULL OR leases.retry_at <= clock_timestamp())
    AND (leases.deadline_at IS NULL OR leases.deadline_at > clock_timestamp())
    AND (%(attempt_ids)s::text[] IS NULL OR listed.attempt_id = ANY(%(attempt_ids)s))
    AND (%(kinds)s::text[] IS NULL OR listed.kind = ANY(%(kinds)s))
    AND (%(tenants)s::text[] IS NULL OR listed.tenant = ANY(%(tenants)s))
    AND (
        %(code_versions)s::text[] IS NULL
        OR listed.code_version = ''
        OR listed.code_version = ANY(%(code_versions)s)
    )
"""

# For the rest of the transaction: one attempt's events must not delay the others.
BRIEFLY = f"SELECT set_config('lock_timeout', '{BRIEF}', true)"

# Epoch and time are drawn for the locked rows, after their locks.
LOCK_READY = f"""
SELECT {COLUMNS}, nextval('epochs') AS new_epoch, clock_timestamp() AS taken_at
FROM (
SELECT {QUALIFIED}
FROM {READY}
ORDER BY listed.priority DESC, listed.ready_at, listed.attempt_id
LIMIT %(limit)s
FOR NO KEY UPDATE OF leases SKIP LOCKED
) AS taken
CROSS JOIN ({BRIEFLY}) AS patience
"""


class LockedLease(NamedTuple):
    """A lease row locked by a claim, the epoch drawn for it, and the time of that."""

    row: LeaseRow
    new_epoch: int
    taken_at: datetime


def take(cursor: Cursor[DictRow], parameters: Mapping[str, Any]) -> list[LockedLease]:
    """Lock the ready leases that a claim takes, in the order of the list: as many as fit into
    `limit_bytes`, and always the first one. The others are free again once the claim has
    committed."""
    with cursor.connection.cursor(binary=True, row_factory=tuple_row) as taking:
        rows = taking.execute(LOCK_READY, parameters).fetchall()
    found = [LockedLease(LeaseRow(*row[:-2]), row[-2], row[-1]) for row in rows]
    if len(found) < 2:
        return found
    sizes = read_sizes(cursor, [one.row.run_id for one in found])
    so_far = accumulate(sizes.get(one.row.run_id, 0) for one in found)
    fitting = sum(size <= parameters["limit_bytes"] for size in so_far)
    return found[: max(fitting, 1)]


def granted(taken: LockedLease, fence: Fence, holder: Holder, ttl_s: float) -> LeaseTerms:
    """The terms of a lease that was just granted. The row's lease ends a moment after these terms
    say, because the row takes the time of its write."""
    row = taken.row
    return LeaseTerms(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        worker_id=holder.worker_id,
        kind=row.kind,
        code_version=row.code_version,
        fence=fence,
        ttl_s=ttl_s,
        expires_at=taken.taken_at + timedelta(seconds=ttl_s),
        progress=row.progress,
    )
