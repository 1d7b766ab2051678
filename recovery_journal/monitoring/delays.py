"""Delays: the delayed part, since when, why, and the remedy, according to the tables and the
server's views."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.events import FIRST_VERSION
from recovery_journal.limits import Limits
from recovery_journal.log.open_writers import open_writers
from recovery_journal.monitoring.projection_status import ProjectionState, ProjectionStatus
from recovery_journal.postgres.accepted_servers import compare
from recovery_journal.postgres.database import one

OPEN_S: Final = 1.0
"""An append takes milliseconds: one that is open for longer blocks readers."""
UNSWEPT_S: Final = 6.0
"""A sweeper polls every second, and after an outage every five."""
UNFOLLOWED_S: Final = 5.0
FULL_SHARE: Final = 0.9

# As sweepers decide it, without what only they can observe: sessions, and reconnects of their own.
UNSWEPT: Final = """
SELECT count(*) AS count, min(lost_at) AS since
FROM leases
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN status = 'held' AND loss IS NOT NULL THEN renewed_at
        WHEN retry_at IS NOT NULL THEN retry_at
        ELSE greatest(
                expires_at,
                pg_postmaster_start_time()
                    + make_interval(secs => CASE status WHEN 'held' THEN ttl_s ELSE %(ttl_s)s END),
                (SELECT max(first_seen_at) FROM server_lives)
                    + make_interval(secs => CASE status WHEN 'held' THEN ttl_s ELSE %(ttl_s)s END)
            ) + make_interval(secs => %(grace_s)s)
        END AS lost_at
) AS loss
WHERE ended_at IS NULL
    AND status IN ('held', 'recovering')
    AND lost_at < clock_timestamp() - make_interval(secs => %(unswept_s)s)
"""

ASIDE: Final = """
SELECT count(*) OVER () AS count, attempt_id, reason, aside.since
FROM set_aside AS aside
JOIN leases USING (attempt_id)
WHERE ended_at IS NULL
ORDER BY aside.since, attempt_id
LIMIT 1
"""

# Compares both ends of each open attempt's stream. Attempts that a sweep or a claim has met are set
# aside already; the worker of a held one may not have noticed. The table refuses events before a
# stream's first version, unless a role has removed that protection.
DIFFERING: Final = """
SELECT count(*) OVER () AS count, leases.attempt_id, unknown.recorded_at AS since,
    unknown.notification_id AS position
FROM leases
CROSS JOIN LATERAL (
    SELECT max(originator_version) AS version, min(originator_version) AS first_version
    FROM journal_events
    WHERE originator_id = leases.attempt_id
) AS stream
LEFT JOIN LATERAL (
    SELECT notification_id, recorded_at
    FROM journal_events
    WHERE originator_id = leases.attempt_id
        AND (
            originator_version > leases.version
            AND NOT (
                leases.status = 'recovering' AND topic IN ('checkpoint-reloaded', 'replayed')
            )
            OR originator_version < %(first_version)s
            AND notification_id NOT IN (SELECT position FROM skipped_events)
        )
    ORDER BY originator_version
    LIMIT 1
) AS unknown ON true
WHERE leases.ended_at IS NULL
    AND (
        leases.version IS DISTINCT FROM stream.version
        OR stream.first_version < %(first_version)s
    )
    AND (unknown.notification_id IS NOT NULL OR leases.version > coalesce(stream.version, 0))
    AND NOT EXISTS (SELECT FROM set_aside WHERE set_aside.attempt_id = leases.attempt_id)
ORDER BY unknown.notification_id, leases.attempt_id
LIMIT 1
"""

# Every process may count the sessions, and few may see their owners.
CONNECTIONS: Final = """
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::integer AS count,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer AS limit
"""


class DelayKind(StrEnum):
    """The kind of obstacle, the gravest first."""

    SERVER_NOT_ACCEPTED = "server_not_accepted"
    AHEAD_OF_THE_LOG = "ahead_of_the_log"
    SET_ASIDE = "set_aside"
    DIFFERS_FROM_THE_LOG = "differs_from_the_log"
    NOT_SWEPT = "not_swept"
    PROJECTION_STOPPED = "projection_stopped"
    OPEN_TRANSACTION = "open_transaction"
    NOT_FOLLOWED = "not_followed"
    CONNECTIONS = "connections"


GRAVITY: Final = tuple(DelayKind)


class Delay(Struct, frozen=True, kw_only=True):
    """One obstacle: what it delays and why, since when, and the remedy."""

    kind: DelayKind
    what: str
    since: datetime | None = None
    do: str


def delays(
    cursor: Cursor[DictRow],
    limits: Limits,
    projections: list[ProjectionStatus],
    *,
    settled: int,
    last: int,
    now: datetime,
) -> list[Delay]:
    """All delays that are found, the gravest first."""
    found = [
        *_of_server(cursor),
        *_of_attempts(cursor, limits),
        *_of_projections(projections, settled=settled, last=last, now=now),
        *_of_writers(cursor),
    ]
    return sorted(found, key=lambda delay: GRAVITY.index(delay.kind))


def _of_server(cursor: Cursor[DictRow]) -> Iterator[Delay]:
    comparison = compare(cursor)
    if not comparison.is_accepted:
        yield Delay(
            kind=DelayKind.SERVER_NOT_ACCEPTED,
            what=f"everything: this server ({comparison.found}) is not the one that the journal "
            f"was accepted on last ({comparison.accepted or 'none'})",
            do="recovery-journal after-restore --by NAME --reason TEXT",
        )
    connections = one(cursor.execute(CONNECTIONS))
    if connections["count"] >= FULL_SHARE * connections["limit"]:
        yield Delay(
            kind=DelayKind.CONNECTIONS,
            what=f"new connections: {connections['count']} of {connections['limit']} are in use",
            do="end idle sessions, or raise max_connections",
        )


def _of_attempts(cursor: Cursor[DictRow], limits: Limits) -> Iterator[Delay]:
    wanted = {"ttl_s": limits.sweeper_ttl_s, "grace_s": limits.grace_s, "unswept_s": UNSWEPT_S}
    unswept = one(cursor.execute(UNSWEPT, wanted))
    if unswept["count"]:
        yield Delay(
            kind=DelayKind.NOT_SWEPT,
            what=f"the recovery of lost leases ({unswept['count']:,}): no sweeper has taken them",
            since=unswept["since"],
            do="see that a sweeper runs: recovery-journal run",
        )
    for row in cursor.execute(ASIDE).fetchall():
        yield Delay(
            kind=DelayKind.SET_ASIDE,
            what=f"attempts that are set aside ({row['count']:,}), as {row['attempt_id']}: "
            f"{row['reason']}",
            since=row["since"],
            do="recovery-journal quarantine list",
        )
    for row in cursor.execute(DIFFERING, {"first_version": FIRST_VERSION}).fetchall():
        attempt_id, position = row["attempt_id"], row["position"]
        what = "attempts whose lease rows and streams know different events "
        what += f"({row['count']:,}), as {attempt_id}"
        do = "recovery-journal after-restore --restored, if events are lost"
        if position:
            what += f", from position {position} on"
            do = f"compare with recovery-journal history {attempt_id}, then recovery-journal skip "
            do += f"{position} --by NAME --reason TEXT"
        yield Delay(kind=DelayKind.DIFFERS_FROM_THE_LOG, what=what, since=row["since"], do=do)


def _of_projections(
    projections: list[ProjectionStatus], *, settled: int, last: int, now: datetime
) -> Iterator[Delay]:
    behind = []
    for it in projections:
        if it.position > last:
            yield Delay(
                kind=DelayKind.AHEAD_OF_THE_LOG,
                what=f"projection {it.name}: at position {it.position}, and the log ends at "
                f"{last}; it has read events that are lost",
                do=f"recovery-journal rebuild {it.name}",
            )
        if it.state is ProjectionState.STOPPED:
            yield Delay(
                kind=DelayKind.PROJECTION_STOPPED,
                what=f"projection {it.name}, stopped behind position {it.position}: {it.error}",
                do="see the error: upgrade, fix the fold, or recovery-journal skip",
            )
        is_followed = it.state is ProjectionState.FOLLOWING
        if is_followed and it.position < settled and it.lag_s > UNFOLLOWED_S:
            behind.append(it)
    if behind:
        yield Delay(
            kind=DelayKind.NOT_FOLLOWED,
            what=f"projections {', '.join(it.name for it in behind)}: settled events wait, and "
            "no follower has folded them",
            since=now - timedelta(seconds=max(it.lag_s for it in behind)),
            do="see that a follower runs and keeps up: recovery-journal run",
        )


def _of_writers(cursor: Cursor[DictRow]) -> Iterator[Delay]:
    for writer in open_writers(cursor, open_s=OPEN_S):
        who = writer.name + (f" ({writer.application})" if writer.application else "")
        if writer.pid:
            who += f", {writer.state or 'of another role'}"
        yield Delay(
            kind=DelayKind.OPEN_TRANSACTION,
            what=f"readers of the log: {who}, has appended and not ended its transaction",
            since=writer.since,
            do=f"end it: {writer.end}",
        )
