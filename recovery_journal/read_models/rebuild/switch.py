"""Replaces the live table by a rebuilt one, in one short transaction."""

import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import StoreBusy
from recovery_journal.log.block import END, LogBlocks
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.process.back_off import BackOff
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.privileges import carry_privileges
from recovery_journal.read_models.tables.projection_table import (
    ProjectionTable,
    shadow_of,
    table_of,
)
from recovery_journal.read_models.tables.table_definition import TablePlace

CATCH_UP_EVENTS: Final = 1_000
LEFT_FOR_SWITCH: Final = 200
CATCH_UP_LIMIT_S: Final = 600.0
SWITCH_LIMIT_S: Final = 60.0

# A session that requests the table while the switch waits for the lock waits behind it, and
# continues to wait while the switch holds it: the two together stay below 100 ms.
WAIT_S: Final = 0.04
HOLD_S: Final = 0.05
# On a slow server that is never enough. After these seconds each try may take twice as long as the
# one before, up to this many times: a pause of 1.5 s is better than a rebuild that never ends.
BRIEF_FOR_S: Final = 10.0
MOST_PATIENCE: Final = 16

BE_BRIEF = """
SELECT set_config('lock_timeout', %(wait)s, true), set_config('statement_timeout', %(hold)s, true)
"""


class Switched(Struct, frozen=True, kw_only=True):
    """The position of the new rows, and for how long, in seconds, other sessions may have
    waited."""

    position: int
    seconds: float


class Switch:
    """Brings a shadow table up to date and puts it in the live one's place.

    `upto` is the settled position up to which the shadow has been folded. `note` is called in the
    transaction of the switch.
    """

    def __init__(
        self,
        database: Database,
        reader: SettledReader,
        projection: Projection[Any],
        *,
        upto: int,
        note: Callable[[Cursor[DictRow]], object] = lambda _cursor: None,
    ) -> None:
        self._database = database
        self._reader = reader
        self._projection = projection
        self._live = table_of(projection)
        self._shadow = shadow_of(projection)
        self._old = ProjectionTable(projection, TablePlace.OLD)
        self._tracking = ProjectionTracking(database)
        self._upto = upto
        self._note = note

    def catch_up(self) -> None:
        """Fold what has been settled meanwhile, until little is left. Raises `StoreBusy` where the
        log grows faster than that."""
        deadline = time.monotonic() + CATCH_UP_LIMIT_S
        while time.monotonic() < deadline:
            page = self._reader.read(self._upto, CATCH_UP_EVENTS)
            with self._database.transaction() as cursor:
                self._shadow.apply(cursor, page.records)
            self._upto = page.settled
            if len(page.records) < LEFT_FOR_SWITCH:
                return
        raise StoreBusy(f"catch up with {self._projection.name!r}", limit=f"{CATCH_UP_LIMIT_S:g} s")

    def run(self) -> Switched:
        """Switch, as soon as no other session has to wait long for it.

        Raises `StoreBusy` where every try would have made others wait too long, `InvalidInput`
        where a view depends on the old table; the old rows serve on.
        """
        began = time.monotonic()
        back_off = BackOff()
        patience = 1
        while True:
            try:
                return self._switch(patience)
            except StoreBusy as busy:
                elapsed = time.monotonic() - began
                if elapsed >= BRIEF_FOR_S:
                    patience = min(patience * 2, MOST_PATIENCE)
                if elapsed >= SWITCH_LIMIT_S:
                    wanted = f"switch projection {self._projection.name!r}"
                    raise StoreBusy(wanted, limit=f"{SWITCH_LIMIT_S:g} s") from busy
            time.sleep(back_off.pause_s())
            self.catch_up()

    def _switch(self, patience: int) -> Switched:
        """The lock waits for earlier inline writers; later ones find the new table, because they
        resolve its name once they have the lock."""
        wait_s, hold_s = WAIT_S * patience, HOLD_S * patience
        with self._database.transaction() as cursor:
            limits = {"wait": f"{wait_s * 1000:.0f}ms", "hold": f"{hold_s * 1000:.0f}ms"}
            cursor.execute(BE_BRIEF, limits)
            place = self._tracking.lock(cursor, self._projection.name, is_patient=True)
            assert place is not None, "a rebuild registers its projections first"
            requested = time.monotonic()
            self._live.lock(cursor)
            held = time.monotonic()
            self._live.require_no_views(cursor)
            upto = max(self._upto, place.position)
            # Inline rows are claimed from at once, so they include all that is visible, past gaps
            # too: an event that is committed later brings its own row, or the follower adds it.
            # Followed rows are what the log folds to at their position, which is what a check and
            # an operator's skip compare them with: they stop there.
            visible = END if self._projection.is_inline else upto
            blocks = LogBlocks(self._database)
            for block in blocks.by_position(after=self._upto, upto=visible):
                self._shadow.apply(cursor, block)
                _require_brief(held, hold_s)
            # Dropping a large table takes time, so that is done after the switch.
            carry_privileges(cursor, self._live.name, self._shadow.name)
            self._live.take_name(cursor, self._old.name)
            self._shadow.take_name(cursor, self._live.name)
            self._tracking.restart(cursor, self._projection, upto)
            self._note(cursor)
            _require_brief(held, hold_s)
        seconds = time.monotonic() - requested
        with self._database.transaction() as cursor:
            self._old.drop(cursor)
        return Switched(position=upto, seconds=seconds)


def _require_brief(held: float, hold_s: float) -> None:
    """Give up, to retry with less to do, before others have waited for too long."""
    if time.monotonic() - held > hold_s:
        raise StoreBusy("switch a projection", limit=f"{hold_s * 1000:g} ms")
