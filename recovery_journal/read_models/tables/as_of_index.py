"""The index that finds what was on a list at any past position.

An entry's stay on the list is a range of positions, and the query is which ranges contain a given
one. The index is a B-tree over the number of bits in the length of the stay, its beginning and its
end. A stay of so many bits that contains a position began less than 2 to the power of that before
it, so for each of the 62 lengths a short part of the index is read, of which at least half are
matches where entries come evenly; the rest is skipped without a read of the table.

A GiST index over `int8range(entered_position, left_position)` says the same in fewer words. With a
million stays it answered in 2.4 ms instead of 0.3, was half as large again, and cost each entry
that leaves 7 to 20 µs and 580 bytes of WAL, against 1 to 2 µs and 80 bytes: every claim pays for
it. (An SP-GiST index degenerates, because positions only grow: 120 µs. A B-tree over where stays
ended has to read all that ended since: 120 ms.)
"""

from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier

from recovery_journal.postgres.database import one
from recovery_journal.read_models.tables.definition_rules import AS_OF

# The index leaves out entries that are still on the list, so that entering costs nothing.
ADD: Final = """
CREATE INDEX {concurrently} {name} ON {table} ({stay_bits}, entered_position, left_position)
WHERE left_position IS NOT NULL
"""

STAY_BITS: Final = SQL("length(ltrim((left_position - entered_position)::bit(64)::text, '0'))")
"""The number of bits in the length of a stay. A query must use this exact expression for the index
to apply."""

IS_VALID: Final = """
SELECT indisvalid AS is_valid
FROM pg_index
WHERE indexrelid = to_regclass(%(name)s)
"""

DROP: Final = "DROP INDEX CONCURRENTLY {name}"

RENAME: Final = "ALTER INDEX IF EXISTS {name} RENAME TO {new_name}"

# Returns the limits that it replaces.
SET_LIMITS: Final = """
SELECT current_setting('statement_timeout') AS statement_timeout,
    current_setting('lock_timeout') AS lock_timeout,
    set_config('statement_timeout', %(statement_timeout)s, false),
    set_config('lock_timeout', %(lock_timeout)s, false)
"""

# The locks allow all other sessions to read and write, and wait for older transactions: a check of
# ten million events is one.
PATIENT: Final = {"statement_timeout": "6h", "lock_timeout": "1h"}


class AsOfIndex:
    """The as-of index of one table, whose rows have `entered_position` and `left_position`."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._name = f"{table}__{AS_OF}"

    def create(self, cursor: Cursor[DictRow]) -> None:
        """Create it in the caller's transaction; meanwhile no session can write to the table."""
        cursor.execute(self._sql(ADD, concurrently=SQL("")))

    def create_beside_writers(self, cursor: Cursor[DictRow]) -> None:
        """Create it, if it does not exist, while other sessions read and write.

        The cursor must be in no transaction. The remains of an interrupted try are removed first.
        Raises `StoreBusy` where a transaction stays open for an hour.
        """
        validity = self._validity(cursor)
        if validity is True:
            return
        limits = one(cursor.execute(SET_LIMITS, PATIENT))
        try:
            if validity is False:
                cursor.execute(self._sql(DROP))
            cursor.execute(self._sql(ADD, concurrently=SQL("CONCURRENTLY")))
        finally:
            if not cursor.connection.closed:
                cursor.execute(SET_LIMITS, limits)

    def is_valid(self, cursor: Cursor[DictRow]) -> bool:
        """Whether it exists and is complete."""
        return self._validity(cursor) is True

    def rename(self, cursor: Cursor[DictRow], table: str) -> None:
        """Rename it along with its table, which gets this name, if the index exists."""
        cursor.execute(self._sql(RENAME, new_name=Identifier(f"{table}__{AS_OF}")))

    def _validity(self, cursor: Cursor[DictRow]) -> bool | None:
        row = cursor.execute(IS_VALID, {"name": self._name}, prepare=True).fetchone()
        return None if row is None else row["is_valid"]

    def _sql(self, statement: str, **parts: Composable) -> Composed:
        return SQL(statement).format(
            name=Identifier(self._name),
            table=Identifier(self._table),
            stay_bits=STAY_BITS,
            **parts,
        )
