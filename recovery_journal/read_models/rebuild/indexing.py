"""Gives the filled shadow tables their keys, indexes and statistics, several at a time."""

from collections.abc import Sequence
from typing import Any, Final

from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.rebuild.processes import Count, side_by_side
from recovery_journal.read_models.tables.projection_table import shadow_of

# The server's own helpers would only be more processes than there are cores. And as with ranges,
# the next start repeats what a crash of the server removed.
INDEX_ALONE: Final = """
SELECT set_config('statement_timeout', '0', true),
    set_config('max_parallel_maintenance_workers', '0', true),
    set_config('synchronous_commit', 'off', true)
"""

# The server continues with an index for a moment after its client was killed.
WAIT_FOR_STRANGERS: Final = "SET LOCAL lock_timeout = '60s'"


def index_shadows(
    database: Database, projections: Sequence[Projection[Any]], process_count: int
) -> None:
    """Create index by index, then keys and statistics table by table, as many at once as there are
    processes. Existing ones stay. Raises `StoreBusy`, `ServerUnavailable`, `ProcessLost`."""
    shadows = [shadow_of(projection) for projection in projections]
    indexes = [(shadow, name) for shadow in shadows for name in shadow.index_names]

    def add_indexes(no: int, count: Count) -> None:
        for shadow, name in indexes[no::process_count]:
            with database.transaction() as cursor:
                cursor.execute(INDEX_ALONE)
                shadow.add_index(cursor, name)
            count(1)

    def finish(no: int, count: Count) -> None:
        for shadow in shadows[no::process_count]:
            with database.transaction() as cursor:
                cursor.execute(INDEX_ALONE)
                shadow.add_key(cursor)
                shadow.analyze(cursor)
            count(1)

    with database.transaction() as cursor:
        cursor.execute(WAIT_FOR_STRANGERS)
        for shadow in shadows:
            shadow.lock(cursor)
    for work in (add_indexes, finish):
        side_by_side(work, process_count, lambda _count: None)
