"""Rule R9: an outage of the server is nobody's death.

While the server is away nobody can renew, so its absence says nothing of a worker. After a server
start, a promotion, a reconnect of this process, or an answer that the server has nothing left to
serve anybody with, every lease has a full TTL to be renewed.
"""

import threading
from datetime import datetime

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.accepted_servers import AcceptedServers
from recovery_journal.postgres.database import Database

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


class _Seen(threading.local):
    """What one thread knows: each has a connection, and so outages, of its own."""

    session_no: int | None = None
    exhaustion_count = 0
    over_at: datetime | None = None


class Outage:
    """Since when the server can be reached from here, by the server's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._servers = AcceptedServers(database)
        self._seen = _Seen()

    def over_since(self, cursor: Cursor[DictRow]) -> datetime:
        """The end of the last outage that this process knows of.

        Raises `ServerReplaced`: behind a pooler another server takes over without a reconnect.
        """
        self._servers.require(cursor)
        cursor.execute(SEE_LIFE)
        row = cursor.execute(UP_SINCE).fetchone()
        assert row is not None
        up_since: datetime = row["up_since"]
        seen, session_no = self._seen, self._database.session_no()
        exhaustion_count = self._database.exhaustion_count()
        if seen.session_no not in (None, session_no) or seen.exhaustion_count != exhaustion_count:
            seen.over_at = row["now"]
        seen.session_no, seen.exhaustion_count = session_no, exhaustion_count
        return max(up_since, seen.over_at) if seen.over_at else up_since
