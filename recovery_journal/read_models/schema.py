"""The tables of projections: those that every journal has, and those that a user adds."""

from collections.abc import Sequence
from typing import Any

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import InvalidInput, SchemaOccupied
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild import registry
from recovery_journal.read_models.tables.projection_table import table_of

OCCUPIED = """
SELECT relname::text AS name
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace
    AND relname IN ('projection_tracking', 'rebuilds', 'rebuild_projections', 'rebuild_ranges')
"""


def catalogue(own: Sequence[Projection[Any]] = ()) -> tuple[Projection[Any], ...]:
    """The built-in projections and the user's own. Raises `InvalidInput` where one of them is no
    projection, has a name, a key or columns that no table can have, or has another one's name."""
    for projection in own:
        if not isinstance(projection, Projection):
            raise InvalidInput(
                "projections",
                found=repr(projection),
                needed="instances of subclasses of Projection",
                do="pass instances, such as [Tenants()]",
            )
        table_of(projection)
    projections = (*BUILT_IN, *own)
    names = [projection.name for projection in projections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(
            "projections",
            found=f"several named {doubled[0]!r}",
            needed="a name of its own for each, other than those of the built-in ones",
            do="rename one",
        )
    return projections


def create_projections(
    database: Database,
    cursor: Cursor[DictRow],
    projections: Sequence[Projection[Any]] = BUILT_IN,
) -> None:
    """Create every projection's table, empty, to be followed from the beginning of the log. An
    existing table is not used, because the journal did not create it. Raises `SchemaOccupied`."""
    for row in cursor.execute(OCCUPIED).fetchall():
        raise SchemaOccupied(database.schema, found=f"a table {row['name']!r}")
    tracking = ProjectionTracking(database)
    tracking.create(cursor)
    registry.create(cursor)
    for projection in projections:
        table_of(projection).create(cursor)
        tracking.register(cursor, projection)


def add_projections(database: Database, projections: Sequence[Projection[Any]]) -> None:
    """As `create_projections`, for those that an existing journal does not know yet: a follower
    fills them from the beginning, or a rebuild does. Any number of processes may do this at
    once."""
    tracking = ProjectionTracking(database)
    known = {place.projection for place in tracking.all()}
    unknown = [projection for projection in projections if projection.name not in known]
    if not unknown:
        return
    with database.transaction() as cursor:
        schemas.lock(cursor)
        for projection in unknown:
            table_of(projection).create_missing(cursor)
            tracking.register(cursor, projection)
