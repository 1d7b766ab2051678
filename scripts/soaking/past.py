"""What a journal holds that has been at work for long: attempts that were lost once, and completed.

A rebuild and a check take more memory with a longer log, up to what their batches come to. A fleet
that begins with an empty log would show that as growth.
"""

from itertools import chain, islice
from typing import Final

from recovery_journal.postgres.database import Database
from scripts.benchmark.grown_journal import take_in
from scripts.benchmark.synthetic_attempt import SyntheticAttempt
from scripts.benchmark.synthetic_fleet import Fleet
from scripts.benchmark.synthetic_log import append

SEED: Final = 1
BATCH: Final = 500


def make_past(dsn: str, schema: str, attempt_count: int) -> None:
    """So many finished attempts in the empty journal of a schema."""
    fleet = Fleet(SEED)
    attempts = (SyntheticAttempt(fleet) for _ in range(attempt_count))
    database = Database(dsn, schema)
    while batch := list(islice(attempts, BATCH)):
        with database.cursor() as cursor:
            append(cursor, list(chain.from_iterable(it.lost_once() for it in batch)))
    take_in(database, after=0)
    with database.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
    database.close()
