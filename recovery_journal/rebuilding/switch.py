"""A rebuilt table takes the place of the live one, in one short transaction."""

import time
from typing import Any, Final

from domain.errors import StoreBusy
from projections.projection import Projection, RowT
from recovery_journal.following.projection_table import Place, ProjectionTable, table_of
from recovery_journal.following.tracking import ProjectionTracking
from recovery_journal.log.block import END, LogBlocks
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database

CATCH_UP_EVENTS: Final = 1_000
CATCH_UP_LIMIT_S: Final = 600.0
SWITCH_LIMIT_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0

# Whoever comes while we wait for the lock has to wait behind us.
WAIT_BRIEFLY = "SET LOCAL lock_timeout = '80ms'"


class Switch:
    """Brings a shadow table up to date and puts it in the live one's place.

    `upto` is the settled position up to which the shadow has been folded.
    """

    def __init__(
        self, database: Database, reader: SettledReader, projection: Projection[Any], *, upto: int
    ) -> None:
        self._database = database
        self._reader = reader
        self._projection = projection
        self._live = table_of(projection)
        self._shadow = shadow_of(projection)
        self._tracking = ProjectionTracking(database)
        self._upto = upto

    def catch_up(self) -> None:
        """Fold what has been settled meanwhile, until what is left is less than a batch. Raises
        `StoreBusy` where the log grows faster than that."""
        deadline = time.monotonic() + CATCH_UP_LIMIT_S
        while time.monotonic() < deadline:
            page = self._reader.read(self._upto, CATCH_UP_EVENTS)
            with self._database.transaction() as cursor:
                self._shadow.apply(cursor, page.records)
            self._upto = page.settled
            if len(page.records) < CATCH_UP_EVENTS:
                return
        raise StoreBusy(f"catch up with {self._projection.name!r}", limit=f"{CATCH_UP_LIMIT_S:g} s")

    def run(self) -> int:
        """Switch, as soon as nobody has to wait long for it; the position of the new rows.

        Raises `StoreBusy` when there was no such moment; the old rows serve on.
        """
        deadline = time.monotonic() + SWITCH_LIMIT_S
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return self._switch()
            except StoreBusy as busy:
                if time.monotonic() >= deadline:
                    wanted = f"switch projection {self._projection.name!r}"
                    raise StoreBusy(wanted, limit=f"{SWITCH_LIMIT_S:g} s") from busy
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            self.catch_up()

    def _switch(self) -> int:
        """Inline writers that came before are waited for; those that come after find the new
        table, because its name is looked up once they have the lock."""
        with self._database.transaction() as cursor:
            cursor.execute(WAIT_BRIEFLY)
            place = self._tracking.lock(cursor, self._projection.name, is_patient=True)
            assert place is not None, "a rebuild registers its projections first"
            self._live.lock(cursor)
            upto = max(self._upto, place.position)
            # Rows of single streams may take in all that is visible, past gaps too: an event that
            # is committed later brings its own inline row, or the follower brings it. Rows that
            # mix streams would shrug at it for its lower position, so they stay at the settled.
            visible = END if self._projection.is_stream_keyed else upto
            blocks = LogBlocks(cursor.connection)
            for block in blocks.by_position(after=self._upto, upto=visible):
                self._shadow.apply(cursor, block)
            self._live.drop(cursor)
            self._shadow.take_name(cursor, self._live.name)
            self._tracking.restart(cursor, self._projection, upto)
        return upto


def shadow_of(projection: Projection[RowT]) -> ProjectionTable[RowT]:
    """Where a rebuild prepares the projection's rows."""
    return ProjectionTable(projection, Place.SHADOW)
