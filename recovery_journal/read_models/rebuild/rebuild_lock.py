"""The lock that allows one rebuild at a time in a schema."""

from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.postgres.database import Database, one

ACQUIRE: Final = """
SELECT pg_try_advisory_lock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)) AS found
"""

RELEASE: Final = """
SELECT pg_advisory_unlock(hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)) AS found
"""

# As pg_locks shows a lock of one 64-bit number: its halves. A try to take the lock would keep a
# rebuild from starting. Any role may hold it; only one that may write the log can rebuild.
HOLDER: Final = """
SELECT pid, usename::text AS role, has_table_privilege(usesysid, 'leases', 'UPDATE') AS can_rebuild
FROM pg_locks
JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory'
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objsubid = 1
    AND granted
    AND (classid::bigint << 32 | objid::bigint)
        = hashtextextended('recovery_journal rebuild ' || %(schema)s, 0)
ORDER BY can_rebuild DESC, pid
LIMIT 1
"""


class RebuildLock:
    """A lock of this thread's session, which ends with it: a killed process blocks no other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session_no = 0

    def acquire(self) -> bool:
        """Try to acquire the lock; return whether this session now holds it. Never waits."""
        is_ours = self._call(ACQUIRE)
        if is_ours:
            self._session_no = self._database.session_no()
        return is_ours

    def release(self) -> None:
        """Release the lock, if it did not end with its session."""
        if self._database.session_no() == self._session_no:
            self._call(RELEASE)

    def require_held(self) -> None:
        """Raise `ServerUnavailable` where its session is gone, and with it the right to write."""
        if self._database.session_no() != self._session_no:
            raise ServerUnavailable(server=self._database.server, reason="the session gone")

    def _call(self, statement: str) -> bool:
        with self._database.cursor() as cursor:
            row = one(cursor.execute(statement.encode(), {"schema": self._database.schema}))
        return bool(row["found"])


def holder(cursor: Cursor[DictRow], schema: str) -> str | None:
    """Process and role of the session that has the lock."""
    row = cursor.execute(HOLDER.encode(), {"schema": schema}).fetchone()
    return f"process {row['pid']} of role {row['role']!r}" if row else None


def is_under_way(cursor: Cursor[DictRow], schema: str) -> bool:
    """Whether a role that can rebuild has the lock: a rebuild is under way in the schema."""
    row = cursor.execute(HOLDER.encode(), {"schema": schema}).fetchone()
    return row is not None and bool(row["can_rebuild"])
