"""Keeping the leases that a sweeper is recovering, while that takes long."""

import time
from collections.abc import Sequence
from typing import Any

from domain.recovery import Recovery
from recovery_journal.postgres.database import Database

RENEW = """
UPDATE leases
SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(sweeper_ttl_s)s)
FROM unnest(%(attempt_ids)s::text[], %(epochs)s::bigint[]) AS mine(attempt_id, epoch)
WHERE leases.attempt_id = mine.attempt_id
    AND leases.epoch = mine.epoch
    AND status = 'recovering'
    AND retry_at IS NULL
"""


class Renewal:
    """The leases of one cohort, just taken: renewed three times in their TTL, and otherwise left
    alone, so that steps that follow each other fast cost their rows nothing."""

    def __init__(self, database: Database, recoveries: Sequence[Recovery], ttl_s: float) -> None:
        self._database = database
        self._every_s = ttl_s / 3
        self._renewed_at = time.monotonic()
        self._mine: dict[str, Any] = {
            "attempt_ids": [recovery.attempt_id for recovery in recoveries],
            "epochs": [recovery.fence.epoch for recovery in recoveries],
            "sweeper_ttl_s": ttl_s,
        }

    def __call__(self) -> None:
        """Renew them if it is time: those that still have their fence and wait for nothing."""
        if time.monotonic() - self._renewed_at >= self._every_s:
            with self._database.cursor() as cursor:
                cursor.execute(RENEW, self._mine)
            self._renewed_at = time.monotonic()
