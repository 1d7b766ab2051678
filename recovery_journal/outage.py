"""Rule R9: an outage of the server is nobody's death.

While the server is away nobody can renew, so its absence says nothing of a worker. After a server
start, a promotion, or a reconnect of this process, every lease has a full TTL to be renewed.
"""

from datetime import datetime

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.database import Database

# A promotion changes the timeline and not the start time; when it happened is known only from
# when it was first seen, so the first sweep after it starts the clock.
SEE_LIFE = """
INSERT INTO server_lives (timeline, started_at)
VALUES (left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_postmaster_start_time())
ON CONFLICT (timeline, started_at) DO NOTHING
"""

UP_SINCE = """
SELECT greatest(
        pg_postmaster_start_time(),
        CASE WHEN lives.count > 1 THEN newest.first_seen_at END
    ) AS up_since,
    clock_timestamp() AS now
FROM (SELECT count(*) FROM server_lives) AS lives,
    (SELECT first_seen_at FROM server_lives ORDER BY first_seen_at DESC LIMIT 1) AS newest
"""


class Outage:
    """Since when the server can be reached from here, by the server's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session_no: int | None = None
        self._reconnected_at: datetime | None = None

    def over_since(self, cursor: Cursor[DictRow]) -> datetime:
        """The end of the last outage that this process knows of."""
        cursor.execute(SEE_LIFE)
        row = cursor.execute(UP_SINCE).fetchone()
        assert row is not None
        session_no = self._database.session_no()
        if self._session_no is not None and session_no != self._session_no:
            self._reconnected_at = row["now"]
        self._session_no = session_no
        up_since: datetime = row["up_since"]
        return max(up_since, self._reconnected_at) if self._reconnected_at else up_since
