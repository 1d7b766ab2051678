"""Rule R9: an outage of the server is no evidence of a worker's death.

While the server is away no worker can renew its leases, so a missing renewal proves nothing. After
a server start, a promotion, a reconnect of this process, or an answer that the server is out of
resources, every lease has a full TTL to be renewed.
"""

import threading
from datetime import datetime

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.accepted_servers import compare
from recovery_journal.postgres.database import Database, one

# A promotion changes the timeline but not the start time. The time of the promotion is unknown, so
# it counts from the moment when the first sweep after it saw it.
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
    """The observations of one thread: each thread has its own connection, and so its own
    outages."""

    session_no: int | None = None
    exhaustion_count = 0
    over_at: datetime | None = None


class Outage:
    """The time since which the server can be reached from this process, by the server's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen = _Seen()

    def over_since(self, cursor: Cursor[DictRow]) -> datetime:
        """The end of the last outage that this process has observed.

        Raises `ServerReplaced`: behind a pooler another server takes over without a reconnect.
        """
        compare(cursor).require(self._database.schema)
        cursor.execute(SEE_LIFE)
        row = one(cursor.execute(UP_SINCE))
        up_since: datetime = row["up_since"]
        seen, session_no = self._seen, self._database.session_no()
        exhaustion_count = self._database.exhaustion_count()
        if seen.session_no not in (None, session_no) or seen.exhaustion_count != exhaustion_count:
            seen.over_at = row["now"]
        seen.session_no, seen.exhaustion_count = session_no, exhaustion_count
        return max(up_since, seen.over_at) if seen.over_at else up_since
