"""The contents of a journal that has been used for long: attempts lost once, and completed.

A rebuild and a check take more memory with a longer log, up to that of their batches. A fleet that
begins with an empty log would show that as growth.
"""

from itertools import chain, islice
from typing import Final

from recovery_journal.postgres.database import Database
from scripts.histories.attempt import Attempt
from scripts.histories.fleet import Fleet
from scripts.histories.log import append
from scripts.histories.rows import add_finished, vacuum

SEED: Final = 1
BATCH: Final = 500


def make_past(dsn: str, schema: str, attempt_count: int) -> None:
    """So many finished attempts in the empty journal of a schema."""
    fleet = Fleet(SEED)
    attempts = (Attempt(fleet) for _ in range(attempt_count))
    database = Database(dsn, schema)
    while batch := list(islice(attempts, BATCH)):
        with database.cursor() as cursor:
            append(cursor, list(chain.from_iterable(it.lost_once() for it in batch)))
    add_finished(database, after=0)
    vacuum(database)
    database.close()
