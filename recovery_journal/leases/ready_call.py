"""The call that attempts have become ready, for workers that wait.

It is a notification in a transaction of its own: PostgreSQL lets only one transaction that notifies
commit at a time, which would queue up appends behind each other. Polling remains the truth, so a
call that is lost costs nothing but time.
"""

from contextlib import suppress

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from domain.errors import Retry
from recovery_journal.postgres.database import Database

# A channel belongs to the whole database; the number of its sequence tells one journal from others.
CALL = "SELECT pg_notify('recovery_journal_ready_' || 'session_locks'::regclass::oid, '')"

CHANNEL = "SELECT 'recovery_journal_ready_' || 'session_locks'::regclass::oid AS name"


def call(database: Database) -> None:
    """Wake the workers that wait. What they would be woken for must be committed."""
    with suppress(Retry), database.cursor() as cursor:
        cursor.execute(CALL)


def listen(connection: Connection[DictRow]) -> None:
    """Hear the calls of this schema's journal in this connection from now on."""
    row = connection.execute(CHANNEL).fetchone()
    assert row is not None
    connection.execute(SQL("LISTEN {}").format(Identifier(row["name"])))
