"""The rows of any projection, page by page."""

from collections.abc import Iterator

from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import PrimaryKey, Projection, RowT
from recovery_journal.read_models.tables.projection_table import PAGE_ROWS, table_of
from recovery_journal.read_models.tables.read_errors import translating_read_errors


class RowReading:
    """Reads whole tables, or the rows of one key, in order of the primary key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, projection: Projection[RowT], key: str | None) -> Iterator[RowT]:
        """The rows, page by page; no connection is held between pages. Raises `RowsUnreadable`."""
        table = table_of(projection)
        after: PrimaryKey | None = None
        while True:
            with translating_read_errors(projection), self._database.cursor() as cursor:
                page = table.page(cursor, after=after, key=key)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = projection.primary_key(page[-1])
