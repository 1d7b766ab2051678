"""Vacuum keeps new events together: it comes before there is much to scatter them over."""

import time
from functools import partial
from itertools import islice
from typing import Final

from recovery_journal.following.projection_schema import create_projections
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from scripts.benchmark.synthetic_log import append, fill, synthetic_events
from tests.servers import PrivateServer

BEFORE: Final = 60_000
AFTER: Final = 11_000
"""Fewer than a fifth, at which the server's defaults would have it vacuumed."""
LIMIT_S: Final = 60

VACUUM_COUNT: Final = """
SELECT autovacuum_count
FROM pg_stat_user_tables
WHERE relid = 'journal_events'::regclass
"""


def test_a_long_log_is_vacuumed_after_a_few_events(private_server: PrivateServer) -> None:
    database = Database(private_server.dsn, "journal")
    schemas.create(database, partial(create_projections, database))
    fill(private_server.dsn, database.schema, event_count=BEFORE)
    with database.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        cursor.execute("SELECT pg_reload_conf()")
    before = vacuum_count(database)

    with database.cursor() as cursor:
        append(cursor, list(islice(synthetic_events(2), AFTER)))

    give_up_at = time.monotonic() + LIMIT_S
    while vacuum_count(database) == before:
        assert time.monotonic() < give_up_at, "nobody has vacuumed the log"
        time.sleep(0.2)
    database.close()


def vacuum_count(database: Database) -> int:
    with database.cursor() as cursor:
        row = cursor.execute(VACUUM_COUNT).fetchone()
    assert row is not None
    count: int = row["autovacuum_count"]
    return count
