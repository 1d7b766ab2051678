"""Polls the session locks of workers, which the server drops within milliseconds of a death.

The server drops them as well when it crashes, restarts or is replaced. So all polls must use one
session on one backend of one server; observations are discarded when that changes.

Any role may take advisory locks. So a lock of these numbers counts only if its session's role may
write leases, and if it is exclusive, as a worker holds its own.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from psycopg.rows import DictRow

from recovery_journal.domain.lease import SessionLoss
from recovery_journal.domain.session_observations import (
    LockHolder,
    SessionObservations,
    observe_again,
)
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database, one

SHORTEST_PAUSE_S: Final = 0.001

SELECT_LOCKS = """
SELECT clock_timestamp() AS now,
    pg_backend_pid() AS backend_id,
    pg_postmaster_start_time() AS started_at,
    held.numbers,
    held.pids
FROM (
    SELECT coalesce(array_agg(objid::bigint), '{}') AS numbers,
        coalesce(array_agg(pid), '{}') AS pids
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = 'session_locks'::regclass
        AND objsubid = 1
        AND mode = 'ExclusiveLock'
        AND granted
        AND pid IS NOT NULL
) AS held
"""

# For sessions that were not known yet. A role may see the start only of its own sessions.
ROLES = """
SELECT pid, usesysid::bigint AS role, backend_start AS started_at
FROM pg_stat_activity
WHERE pid = ANY(%(pids)s::integer[])
    AND has_table_privilege(usesysid, 'leases', 'UPDATE')
"""

# Queried once for each lock that disappears, within its grace: then its leases still belong to its
# worker.
ATTEMPTS = """
SELECT session_lock, array_agg(attempt_id) AS attempts
FROM leases
WHERE is_watched AND status = 'held' AND session_lock = ANY(%(locks)s::integer[])
GROUP BY session_lock
"""

_log = logging.getLogger("recovery_journal.recovery.session_watch")


class _Seen(threading.local):
    """The observations of one thread: each polls through its own session."""

    sight: SessionObservations | None = None
    holders: Mapping[tuple[int, int], LockHolder | None] = MappingProxyType({})
    is_reported: bool = False


class SessionWatch:
    """The session locks of all workers, as this process's sessions have observed them."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._seen = _Seen()

    def poll(self) -> float:
        """Poll once; return in how many seconds to poll again, 0 where a session has just ended."""
        session_no = self._database.session_no()
        with self._database.cursor() as cursor:
            row = one(cursor.execute(SELECT_LOCKS))
        before = self._seen.sight
        if self._database.session_no() != session_no or self._is_pooled():
            self._seen.sight = None
            self._seen.holders = {}
            return self._limits.session_poll_s
        sight = self._seen.sight = observe_again(
            before,
            life=(session_no, row["backend_id"], row["started_at"]),
            holders=self._holders(list(zip(row["numbers"], row["pids"], strict=True))),
            now=row["now"],
            grace_s=self._limits.session_grace_s,
        )
        newly_gone = sight.gone.keys() - (before.gone.keys() if before else set())
        if newly_gone:
            sight = self._seen.sight = sight.with_attempts(self._attempts_of(newly_gone))
        has_ended = before is not None and bool(sight.ended.keys() - before.ended.keys())
        return 0 if has_ended else self._pause_s(sight, row)

    def ended(self) -> list[int]:
        """The locks that count as ended, so that their leases are lost."""
        return [] if self._seen.sight is None else list(self._seen.sight.ended)

    def gone(self) -> list[int]:
        """The locks that are gone, whether or not their grace is over."""
        sight = self._seen.sight
        return [] if sight is None else [*sight.gone, *sight.ended]

    def recently_ended(self) -> list[int]:
        """The locks that ended recently, also those whose leases were taken back already."""
        return [] if self._seen.sight is None else self._seen.sight.recently_ended()

    def loss_of(self, session_lock: int | None) -> SessionLoss | None:
        """The evidence that a lock has ended, if there is any."""
        if session_lock is None or self._seen.sight is None:
            return None
        return self._seen.sight.ended.get(session_lock)

    def _holders(self, held: Sequence[tuple[int, int]]) -> dict[int, LockHolder]:
        """The holder of each lock, by number and process. Only new holders are queried, so that a
        poll of an idle fleet stays one short statement."""
        known = self._seen.holders
        if new := [pid for number, pid in held if (number, pid) not in known]:
            with self._database.cursor() as cursor:
                rows = cursor.execute(ROLES, {"pids": new}).fetchall()
            found = {row["pid"]: LockHolder(**row) for row in rows}
        else:
            found = {}
        known = self._seen.holders = {
            (number, pid): known[number, pid] if (number, pid) in known else found.get(pid)
            for number, pid in held
        }
        return {number: holder for (number, _), holder in known.items() if holder is not None}

    def _attempts_of(self, locks: Iterable[int]) -> dict[int, frozenset[str]]:
        with self._database.cursor() as cursor:
            rows = cursor.execute(ATTEMPTS, {"locks": list(locks)}).fetchall()
        return {row["session_lock"]: frozenset(row["attempts"]) for row in rows}

    def _pause_s(self, sight: SessionObservations, row: DictRow) -> float:
        """The usual pause, or a shorter one where the grace of a lock that is gone ends before
        that."""
        grace_s = self._limits.session_grace_s
        left_s: list[float] = [
            grace_s - (row["now"] - loss.gone_at).total_seconds() for loss in sight.gone.values()
        ]
        return min([self._limits.session_poll_s, *(max(one, SHORTEST_PAUSE_S) for one in left_s)])

    def _is_pooled(self) -> bool:
        """Whether a pooler lends its backends to this session: it would hide the end of the
        session, which must be unbroken."""
        if self._database.is_direct():
            return False
        if not self._seen.is_reported:
            self._seen.is_reported = True
            _log.warning(
                "cannot watch session locks through %s: found a connection pooler before the "
                "server, needed a direct connection; workers' deaths are noticed by the TTL alone",
                self._database.server,
            )
        return True
