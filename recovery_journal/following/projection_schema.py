"""The tables of the built-in projections, made together with the log."""

from psycopg import Cursor
from psycopg.rows import DictRow

from projections.catalog import BUILT_IN
from recovery_journal.following.projection_table import ProjectionTable
from recovery_journal.following.tracking import ProjectionTracking
from recovery_journal.postgres.database import Database


def create_projections(database: Database, cursor: Cursor[DictRow]) -> None:
    """Make every projection's table, empty, and let it begin at the log's beginning."""
    tracking = ProjectionTracking(database)
    tracking.create(cursor)
    for projection in BUILT_IN:
        ProjectionTable(projection).create(cursor)
        tracking.register(cursor, projection)
