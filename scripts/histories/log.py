"""A log of any length, as a fleet in a bad month would have written it: realistic, and the same
for the same seed.

Many attempts are under way at once, so the events of one stream stand apart in the log. Four
events to a recovery, on average: many losses of a foreign runtime are false alarms, some runs
crash repeatedly, the others are lost once and continue.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Final

import msgspec
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.postgres.database import Database
from scripts.histories.attempt import Attempt, Story
from scripts.histories.fleet import Fleet

LIVE_ATTEMPTS: Final = 500
"""How many attempts of one fleet are under way at once."""

CHUNK_EVENTS: Final = 5_000

LONGEST_ALARM: Final = 5
"""How often a foreign lease is renewed late, at most."""

OF_FALSE_ALARMS: Final = 50
OF_CRASH_LOOPS: Final = 15
"""Attempts of a hundred; the others are lost once. With stories of 7, 29 and 9 events and 3, 6
and 1 recoveries, on average, that makes 4 events to a recovery."""

COPY: Final = """
COPY journal_events (originator_id, originator_version, topic, state)
FROM STDIN WITH (FORMAT binary)
"""

COLUMN_TYPES: Final = ("text", "int8", "text", "bytea")


def fleet_events(seed: int, *, fleet_no: int = 0, fleet_count: int = 1) -> Iterator[AnyEvent]:
    """Events without end, in the order in which one of the fleets appends them."""
    fleet = Fleet(seed, no=fleet_no, fleet_count=fleet_count)
    live = [_new_story(fleet) for _ in range(LIVE_ATTEMPTS)]
    while True:
        at = fleet.below(LIVE_ATTEMPTS)
        event = next(live[at], None)
        if event is None:
            live[at] = _new_story(fleet)
        else:
            yield event


def one_stream(seed: int) -> Iterator[AnyEvent]:
    """Events without end of one attempt, which is lost and recovered repeatedly."""
    return Attempt(Fleet(seed)).lost_for_ever()


def fill(dsn: str, schema: str, *, event_count: int, seed: int = 1, process_count: int = 2) -> None:
    """Append so many events to the empty log of a schema, with as many fleets as processes.

    The same arguments make the same streams; only the order of the fleets' events in the log is the
    processes' own. Then the log is vacuumed and analysed, as autovacuum
    would have done in the meantime.
    """
    fleets = range(process_count)
    # The first fleets take what does not divide.
    shares = [(event_count + process_count - 1 - no) // process_count for no in fleets]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(process_count, mp_context=spawn) as pool:
        written = [
            pool.submit(_write, dsn, schema, seed, no, process_count, share)
            for no, share in enumerate(shares)
        ]
        for writer in written:
            writer.result()
    _vacuum(dsn, schema)


def fill_one_stream(dsn: str, schema: str, *, event_count: int, seed: int = 1) -> None:
    """Append so many events of one attempt to the empty log of a schema; then as `fill`."""
    append_all(dsn, schema, islice(one_stream(seed), event_count))
    _vacuum(dsn, schema)


def _vacuum(dsn: str, schema: str) -> None:
    database = Database(dsn, schema, statement_s=0)
    with database.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) journal_events")
    database.close()


def _new_story(fleet: Fleet) -> Story:
    lot = fleet.below(100)
    attempt = Attempt(fleet)
    if lot < OF_FALSE_ALARMS:
        return attempt.false_alarms(1 + fleet.below(LONGEST_ALARM))
    if lot < OF_FALSE_ALARMS + OF_CRASH_LOOPS:
        return attempt.crash_loop()
    return attempt.lost_once()


def _write(
    dsn: str, schema: str, seed: int, fleet_no: int, fleet_count: int, event_count: int
) -> None:
    """Append one fleet's events, in a process of its own."""
    events = fleet_events(seed, fleet_no=fleet_no, fleet_count=fleet_count)
    append_all(dsn, schema, islice(events, event_count))


def append_all(dsn: str, schema: str, events: Iterator[AnyEvent]) -> None:
    """Append these events, chunk by chunk."""
    database = Database(dsn, schema)
    while chunk := list(islice(events, CHUNK_EVENTS)):
        with database.cursor() as cursor:
            append(cursor, chunk)
    database.close()


def append(cursor: Cursor[DictRow], events: list[AnyEvent]) -> None:
    """Append these events, in the order in which they are given."""
    encode = msgspec.json.Encoder().encode
    with cursor.copy(COPY) as copy:
        copy.set_types(COLUMN_TYPES)
        for event in events:
            version = event.originator_version
            copy.write_row((event.originator_id, version, tag_of(event), encode(event)))
