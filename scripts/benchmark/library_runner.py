"""The library's `ProjectionRunner` over our log, as its documentation shows it."""

import time
from typing import Any, ClassVar, Final
from uuid import uuid4

import psycopg
from eventsourcing.application import Application
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg import sql

from recovery_journal.postgres.database import Database
from recovery_journal.read_models.tables.projection_table import ProjectionTable
from scripts.benchmark.library_view import PROJECTIONS, LibraryView
from scripts.benchmark.measuring import drop_schema

POLL_S: Final = 0.05


class LibraryApplication(Application[str]):
    """The library's event_log, with the library's own recorder."""

    name = "journal"  # its table is journal_events
    env: ClassVar[dict[str, str]] = {
        "MAPPER_TOPIC": "recovery_journal.library_adapter:LibraryMapper",
        "ORIGINATOR_ID_TYPE": "text",
        "JOURNAL_CREATE_TABLE": "no",
    }


class LibraryProjection(Projection[LibraryView]):
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
    rows = Database(dsn, f"benchmark_{uuid4().hex[:12]}")
    try:
        make_tables(rows)
        return follow(settings(dsn, schema, rows.schema), event_count)
    finally:
        drop_schema(rows)
        rows.close()


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
    with ProjectionRunner[LibraryApplication, LibraryView](
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
    with psycopg.connect(dsn) as connection:
        where = connection.info
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": where.dbname,
            "POSTGRES_HOST": where.host,
            "POSTGRES_PORT": str(where.port),
            "POSTGRES_USER": where.user,
            "POSTGRES_PASSWORD": where.password,
            "JOURNAL_POSTGRES_SCHEMA": schema,
            "RECOVERIES_POSTGRES_SCHEMA": schema_of_rows,
        }
