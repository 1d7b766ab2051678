"""Records which code versions workers demand, and when last.

The record distinguishes changed code from an absent fleet: the wait for a code version ends only if
workers of other versions came, and none of the version that an attempt needs.
"""

from collections.abc import Sequence

from recovery_journal.domain.policy import Policy
from recovery_journal.postgres.database import Database
from recovery_journal.process.throttle import Throttle

LONGEST_PACE_S = 60.0
SHARE = 0.1

SHORTEST_MEMORY_S = 30 * 86_400.0
"""Long, because processes may differ in how long they wait for a code version."""
MEMORY_SHARE = 2

# Most workers find that another one has just recorded the same demand, and write nothing.
RECORD_DEMAND = """
INSERT INTO code_version_demand (kind, code_version)
SELECT kind, code_version
FROM unnest(%(kinds)s::text[]) AS kind
CROSS JOIN unnest(%(code_versions)s::text[]) AS code_version
WHERE NOT EXISTS (
    SELECT
    FROM code_version_demand
    WHERE code_version_demand.kind = kind.kind
        AND code_version_demand.code_version = code_version.code_version
        AND asked_at > clock_timestamp() - make_interval(secs => %(pace_s)s)
)
ORDER BY kind, code_version
ON CONFLICT (kind, code_version) DO UPDATE
SET asked_at = clock_timestamp()
"""

# Old demand has no effect on decisions. Locked rows are being renewed.
FORGET = """
DELETE FROM code_version_demand
WHERE ctid = ANY(ARRAY(
    SELECT ctid
    FROM code_version_demand
    WHERE asked_at < clock_timestamp() - make_interval(secs => %(memory_s)s)
    FOR UPDATE SKIP LOCKED
))
"""

# Ready, and only workers of other code versions have come for it.
MISSED = """
is_watched
    AND status = 'ready'
    AND code_version <> ''
    AND (retry_at IS NULL OR retry_at <= clock_timestamp())
    AND renewed_at < clock_timestamp() - make_interval(secs => %(version_wait_s)s)
    AND NOT EXISTS (
        SELECT
        FROM code_version_demand
        WHERE code_version_demand.kind IN ('', leases.kind)
            AND code_version_demand.code_version = leases.code_version
            AND asked_at > clock_timestamp()
                - make_interval(secs => %(version_wait_s)s + 2 * %(asking_pace_s)s)
    )
    AND EXISTS (
        SELECT
        FROM code_version_demand
        WHERE code_version_demand.kind IN ('', leases.kind)
            AND code_version_demand.code_version <> leases.code_version
            AND asked_at > leases.renewed_at
    )
    AND (kind, code_version) NOT IN (
        SELECT kind, code_version FROM leases WHERE is_watched AND status = 'held'
    )
"""

ANY_KIND = [""]


class CodeVersionDemand:
    """The demand of the claimers of one process, recorded through a throttle."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._pace_s = pace_s(policy)
        self._memory_s = max(SHORTEST_MEMORY_S, policy.version_wait_s * MEMORY_SHARE)
        self._throttle = Throttle(self._pace_s)

    def note(self, kinds: Sequence[str] | None, code_versions: Sequence[str]) -> None:
        """Record that a worker demands runs of these kinds, or of any, in these versions."""
        demand = (tuple(kinds or ANY_KIND), tuple(code_versions))
        if not self._throttle.is_due(demand):
            return
        wanted = {
            "kinds": list(demand[0]),
            "code_versions": list(demand[1]),
            "pace_s": self._pace_s,
        }
        with self._database.cursor() as cursor:
            if cursor.execute(RECORD_DEMAND, wanted).rowcount > 0:
                cursor.execute(FORGET, {"memory_s": self._memory_s})
        self._throttle.record(demand)


def pace_s(policy: Policy) -> float:
    """The throttle's interval in seconds: a small part of the wait about which demand decides."""
    return min(LONGEST_PACE_S, policy.version_wait_s * SHARE)
