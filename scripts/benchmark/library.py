"""The library's `ProjectionRunner` over our log, as its documentation shows it.

The rows are made in its documented way: by a tracking recorder that also stores rows. The folds are
the journal's, the statements are written by hand for one event at a time. (Those of the journal are
made for batches: with them the library is a third slower.)
"""

import time
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic

import msgspec
import psycopg
from eventsourcing import projection as library
from eventsourcing.application import Application
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg import Cursor, sql
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier, Placeholder
from psycopg.types.json import Jsonb

from recovery_journal.domain.events import AnyEvent
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.projection import Projection, Record, RowT
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.read_models.tables.projection_table import ProjectionTable
from recovery_journal.read_models.tables.row_form import RowForm
from scripts.benchmark.measuring import unused_schema

PROJECTIONS: Final[tuple[Projection[Any], ...]] = (RECOVERY_CONTEXTS, DISPATCH_READY)

RECORDED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The library hands out no time of recording; to fetch it would cost a query more."""

NEWEST: Final = """
SELECT *
FROM {table}
WHERE {first} = %s
ORDER BY {second} DESC
LIMIT 1
"""

UPSERT: Final = """
INSERT INTO {table} ({fields})
VALUES ({values})
ON CONFLICT ({first}, {second}) DO UPDATE
SET ({fields}) = ROW({excluded})
"""


class LibraryView(PostgresTrackingRecorder):
    """The rows, and the position up to which they were made, in one transaction. Its tables are
    there already."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self._rows = [_Rows(it, datastore.schema) for it in PROJECTIONS]

    def store(self, event: AnyEvent, tracking: Tracking) -> None:
        """Store what the event changes. One that concerns no row costs nothing."""
        concerned = [rows for rows in self._rows if rows.are_concerned(event)]
        if not concerned:
            return
        record = Record(event, tracking.notification_id, RECORDED_AT)
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            for rows in concerned:
                rows.fold(cursor, record)


class _Rows(Generic[RowT]):
    """The rows of one projection, one at a time."""

    def __init__(self, projection: Projection[RowT], schema: str) -> None:
        self._projection = projection
        self._columns = RowForm(projection.row_type).columns
        self._newest = self._statement(NEWEST, schema)
        self._upsert = self._statement(UPSERT, schema)

    def are_concerned(self, event: AnyEvent) -> bool:
        """Whether the fold concerns such events at all."""
        events = self._projection.events
        return events is None or type(event) in events

    def fold(self, cursor: Cursor[DictRow], record: Record) -> None:
        """Read the newest row, fold the event, store what changed: two prepared statements."""
        key = self._projection.key(record.event)
        found = cursor.execute(self._newest, (key,), prepare=True).fetchone()
        row = msgspec.convert(found, self._projection.row_type) if found else None
        after = self._projection.fold(row, record)
        if after is not None and after is not row:
            cursor.execute(self._upsert, self._values(after), prepare=True)

    def _values(self, row: RowT) -> list[Any]:
        values = [(getattr(row, field), kind) for field, kind in self._columns.items()]
        return [
            Jsonb(msgspec.to_builtins(value))
            if kind.startswith("jsonb") and value is not None
            else value
            for value, kind in values
        ]

    def _statement(self, statement: str, schema: str) -> bytes:
        first, second = map(Identifier, self._projection.key_fields)
        fields = [Identifier(field) for field in self._columns]
        composed = SQL(statement).format(
            table=Identifier(schema, f"projection_{self._projection.name}"),
            first=first,
            second=second,
            fields=SQL(", ").join(fields),
            values=SQL(", ").join([Placeholder()] * len(fields)),
            excluded=SQL(", ").join([SQL("EXCLUDED.{}").format(field) for field in fields]),
        )
        return composed.as_bytes(None)


POLL_S: Final = 0.05


class LibraryApplication(Application[str]):
    """The library's event_log, with the library's own recorder."""

    name = "journal"  # its table is journal_events
    env: ClassVar[dict[str, str]] = {
        "MAPPER_TOPIC": "recovery_journal.library_adapter:LibraryMapper",
        "ORIGINATOR_ID_TYPE": "text",
        "JOURNAL_CREATE_TABLE": "no",
    }


class LibraryProjection(library.Projection[LibraryView]):
    """Hands every event to the view, and notes when it has seen as many as wanted."""

    name = "recoveries"
    wanted_count: ClassVar[int]

    def __init__(self, view: LibraryView) -> None:
        super().__init__(view)
        self.finished_at: float | None = None
        self._seen_count = 0

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:  # noqa: ANN401 - as the library declares it
        """Process one event."""
        self.view.store(domain_event, tracking)
        self._seen_count += 1
        if self._seen_count == self.wanted_count:
            self.finished_at = time.perf_counter()


def run_library(dsn: str, schema: str, event_count: int) -> float:
    """How many seconds the runner takes for so many events from the log's beginning."""
    with unused_schema(dsn) as rows:
        make_tables(rows)
        return follow(settings(dsn, schema, rows.schema), event_count)


def make_tables(database: Database) -> None:
    """The tables of the rows, with their indexes, in a schema of their own."""
    with database.transaction() as cursor:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(database.schema)))
        for projection in PROJECTIONS:
            ProjectionTable(projection).create(cursor)


def follow(environment: dict[str, str], event_count: int) -> float:
    """Run the library's runner until it has seen so many events; the seconds it took."""
    LibraryProjection.wanted_count = event_count
    begun = time.perf_counter()
    with library.ProjectionRunner[LibraryApplication, LibraryView](
        application_class=LibraryApplication,
        projection_class=LibraryProjection,
        view_class=LibraryView,
        env=environment,
    ) as runner:
        projection = runner.projection
        assert isinstance(projection, LibraryProjection)
        while projection.finished_at is None:
            runner.run_forever(timeout=POLL_S)  # raises what stopped it, if something did
        return projection.finished_at - begun


def settings(dsn: str, schema: str, schema_of_rows: str) -> dict[str, str]:
    """The library's settings: where the server, the log and the rows are."""
    names = ("dbname", "host", "port", "user", "password")
    with psycopg.connect(dsn) as connection:
        where = {f"POSTGRES_{it.upper()}": str(getattr(connection.info, it)) for it in names}
    return where | {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "JOURNAL_POSTGRES_SCHEMA": schema,
        "RECOVERIES_POSTGRES_SCHEMA": schema_of_rows,
    }
