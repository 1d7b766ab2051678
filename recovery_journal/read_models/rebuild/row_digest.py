"""A digest of all rows of a projection: equal rows, equal digest."""

from hashlib import sha256
from typing import Any

from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.tables.projection_table import table_of

REPEATABLE_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


class RowDigest:
    """A digest of rows that are added in order of primary key, each as its form's bytes."""

    def __init__(self) -> None:
        self._digest = sha256()
        self.row_count = 0

    def add(self, row: bytes) -> None:
        """Add one row."""
        self._digest.update(row + b"\n")
        self.row_count += 1

    def __str__(self) -> str:
        return f"rows1:{self._digest.hexdigest()}"


def digest_of_rows(database: Database, projection: Projection[Any]) -> tuple[int, str]:
    """How many rows there are, and the digest of them all in order of key, in one snapshot."""
    table = table_of(projection)
    digest = RowDigest()
    with database.transaction() as cursor:
        cursor.execute(REPEATABLE_READ)
        for row in table.rows(cursor):
            digest.add(table.form.to_bytes(row))
    return digest.row_count, str(digest)
