"""Writing real logs: what a program does that appends, with or without inline rows."""

from random import Random
from typing import Any, NamedTuple

from recovery_journal.domain.events import AnyEvent
from recovery_journal.log.appender import append
from recovery_journal.log.block import LogBlocks
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.projections.projection import Projection, Record
from recovery_journal.read_models.following.inline import InlineRows
from recovery_journal.read_models.tables.projection_table import table_of
from tests.log.event_log import EventLog
from tests.projections.logs import random_log, rows_of


class Source(NamedTuple):
    """A reader of one connection's log with the database of another."""

    database: Database
    reader: SettledReader


class Writer:
    """A program that appends events one after the other, each in a transaction of its own, and
    has this fold for the dispatch-ready list."""

    def __init__(
        self, database: Database, listed: Projection[DispatchReadyRow] = DISPATCH_READY
    ) -> None:
        self.database = database
        self.listed = InlineRows(listed)
        self.event_log = EventLog(database)
        self.reader = self.event_log.reader

    def write(self, events: list[AnyEvent], *, is_inline: bool = True) -> None:
        """Append the events; the dispatch-ready list inline, unless the program is an old one."""
        for event in events:
            with self.database.transaction() as cursor:
                append([event], cursor)
                if is_inline:
                    self.listed.write(cursor, [event])

    def write_random(self, seed: int = 1, *, is_inline: bool = True, act_count: int = 400) -> None:
        """Append the streams of some attempts, whose ids begin with the seed."""
        log = random_log(Random(seed), prefix=f"{seed}-", attempt_count=20, act_count=act_count)
        self.write([record.event for record in log], is_inline=is_inline)

    def log(self) -> list[Record]:
        """All that is visible, in order."""
        blocks = LogBlocks(self.database).by_position()
        return [record for block in blocks for record in block]

    def stored(self, projection: Projection[Any]) -> list[bytes]:
        """The rows of the live table."""
        table = table_of(projection)
        with self.database.cursor() as cursor:
            return [table.form.to_bytes(row) for row in table.rows(cursor)]

    def expected(self, projection: Projection[Any], *, upto: int | None = None) -> list[bytes]:
        """The rows that a fold from scratch makes of the log, up to a position."""
        form = table_of(projection).form
        log = [record for record in self.log() if upto is None or record.position <= upto]
        return [form.to_bytes(row) for row in rows_of(projection, log)]
