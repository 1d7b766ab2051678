"""A digest of all rows of a projection: equal rows, equal digest."""

from hashlib import sha256
from typing import Any

from projections.projection import Projection
from recovery_journal.following.projection_table import table_of
from recovery_journal.postgres.database import Database

ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


def digest_of_rows(database: Database, projection: Projection[Any]) -> tuple[int, str]:
    """How many rows there are, and the digest of them all in order of key, in one snapshot."""
    table = table_of(projection)
    digest, row_count = sha256(), 0
    with database.transaction() as cursor:
        cursor.execute(ONE_SNAPSHOT)
        for row in table.rows(cursor):
            digest.update(table.form.to_bytes(row) + b"\n")
            row_count += 1
    return row_count, f"rows1:{digest.hexdigest()}"
