"""What was on a list at any past position, held to a fold of the log's beginning."""

from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL

from recovery_journal.domain.errors import InvalidInput, PositionNotReached
from recovery_journal.domain.events import (
    AnyEvent,
    LeaseEnded,
    LeaseGranted,
    Quarantined,
    QuarantineLifted,
    StartPoint,
)
from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.projections.projection import (
    Index,
    Listing,
    PositionRow,
    Projection,
    Record,
    StreamRow,
)
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.as_of import ListReading, entries_then, statement_of
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.tables.projection_table import ProjectionTable, table_of
from tests.domain.specimens import NOW
from tests.projections.logs import random_log, rows_of

ALL = 10_000
LAST = 2**63 - 1

busy_log = partial(random_log, attempt_count=15, act_count=200)

with_the_table = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20
)


@pytest.fixture(params=["indexed", "not yet indexed"])
def lists(request: pytest.FixtureRequest, database: Database) -> ListReading:
    """The list's table, with its index and without it, as a rebuild leaves it for a while."""
    with database.transaction() as cursor:
        table_of(DISPATCH_READY).create(cursor)
        if request.param == "not yet indexed":
            cursor.execute("DROP INDEX projection_dispatch_ready__as_of")
    return ListReading(database)


@with_the_table
@given(seed=st.integers(0, 2**32))
def test_the_list_at_a_position_is_what_a_fold_up_to_there_makes(
    database: Database, lists: ListReading, seed: int
) -> None:
    log = busy_log(Random(seed))
    with database.transaction() as cursor:
        cursor.execute("TRUNCATE projection_dispatch_ready")
        table_of(DISPATCH_READY).apply(cursor, log)

    for position in range(log[-1].position + 2):
        found = lists.listed(DISPATCH_READY, position=position, limit=ALL)

        assert found == on_the_list([record for record in log if record.position <= position])


def on_the_list(log: list[Record]) -> list[DispatchReadyRow]:
    """The plainest reading: fold it all, keep who is on the list, sort."""
    rows = [row for row in rows_of(DISPATCH_READY, log) if row.is_active]
    return sorted(rows, key=lambda row: (-row.priority, row.ready_at, row.attempt_id))


def test_busy_logs_have_attempts_that_enter_again_and_lists_of_several() -> None:
    chance = Random(7)

    found = [busy_log(chance) for _ in range(20)]

    rows = [rows_of(DISPATCH_READY, log) for log in found]
    again = [len(entries) - len({row.attempt_id for row in entries}) for entries in rows]
    assert sum(count > 0 for count in again) > 10
    at_once = [sum(is_in(row, 120) for row in entries) for entries in rows]
    assert sum(count > 1 for count in at_once) > 5


def is_in(row: DispatchReadyRow, position: int) -> bool:
    is_gone = row.left_position is not None and row.left_position <= position
    return row.entered_position <= position and not is_gone


lengths = st.none() | st.integers(1, 40) | st.integers(0, 61).map(lambda bits: 1 << bits)
stays = st.lists(st.tuples(st.integers(1, 99) | st.integers(1, 2**61), lengths), max_size=12)


@with_the_table
@given(stays=stays)
def test_an_entry_is_on_the_list_from_its_entering_until_before_its_leaving(
    database: Database, lists: ListReading, stays: list[tuple[int, int | None]]
) -> None:
    rows = [entry(no, entered, length) for no, (entered, length) in enumerate(stays)]
    with database.transaction() as cursor:
        cursor.execute("TRUNCATE projection_dispatch_ready")
        table_of(DISPATCH_READY).upsert(cursor, rows)
    edges = {edge for row in rows for edge in (row.entered_position, row.left_position or LAST)}

    for position in {min(edge + step, LAST) for edge in edges for step in (-1, 0, 1)}:
        found = lists.listed(DISPATCH_READY, position=position, limit=ALL)

        assert [row.attempt_id for row in found] == [
            row.attempt_id for row in rows if is_in(row, position)
        ]


def entry(no: int, entered: int, length: int | None = None, **changes: Any) -> DispatchReadyRow:
    left = None if length is None else min(entered + length, LAST)
    row = DispatchReadyRow(
        attempt_id=f"a-{no:02}",
        version=5 if left is None else 6,
        entered_version=5,
        run_id="r",
        recovery_no=1,
        attempt_no=1,
        kind="report",
        tenant="",
        priority=0,
        ready_at=NOW,
        not_before=None,
        code_version="",
        start=StartPoint.TIP,
        in_doubt=(),
        entered_position=entered,
        left_position=left,
        left_at=None if left is None else NOW,
    )
    return replace(row, **changes)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ({"kind": ["mail"]}, ["a-02", "a-04"]),
        ({"tenant": ["", "acme"]}, ["a-01", "a-02", "a-03"]),
        ({"kind": ["report"], "tenant": ["acme"]}, ["a-03"]),
        ({"kind": [], "tenant": None}, []),
    ],
)
def test_filters_hold_for_entries_that_left_and_for_those_that_did_not(
    database: Database, lists: ListReading, only: dict[str, Any], names: list[str]
) -> None:
    rows = [
        entry(1, 1, 9),
        entry(2, 2, kind="mail", tenant="acme"),
        entry(3, 3, 9, tenant="acme"),
        entry(4, 4, kind="mail", tenant="other"),
    ]
    with database.transaction() as cursor:
        table_of(DISPATCH_READY).upsert(cursor, rows)

    found = lists.listed(DISPATCH_READY, position=4, limit=ALL, only=only)

    assert [row.attempt_id for row in found] == names


def test_a_limit_takes_the_first_in_the_lists_order_whether_they_left_or_not(
    database: Database, lists: ListReading
) -> None:
    rows = [entry(no, no, no % 2 * 20 or None, priority=no % 3) for no in range(1, 13)]
    with database.transaction() as cursor:
        table_of(DISPATCH_READY).upsert(cursor, rows)

    found = lists.listed(DISPATCH_READY, position=12, limit=6)

    assert [(row.priority, row.attempt_id) for row in found] == [
        *((2, f"a-{no:02}") for no in (2, 5, 8, 11)),
        *((1, f"a-{no:02}") for no in (1, 4)),
    ]


def test_entries_are_found_by_the_index_of_their_stays_and_by_that_of_the_list(
    database: Database,
) -> None:
    table = table_of(DISPATCH_READY)
    rows = [entry(no, 7 * no, None if no % 50 == 0 else 1 + no % 90) for no in range(5000)]
    with database.transaction() as cursor:
        table.create(cursor)
        table.upsert(cursor, sorted(rows, key=lambda row: row.attempt_id))
        table.analyze(cursor)

        indexed = plan_of(cursor, position=9000)
        cursor.execute("DROP INDEX projection_dispatch_ready__as_of")
        unindexed = plan_of(cursor, position=9000)

    assert "Scan using projection_dispatch_ready__as_of" in indexed
    assert "projection_dispatch_ready__active" in indexed
    assert "Seq Scan" not in indexed
    # Without it, the table is read once, and not for every length of a stay.
    assert unindexed.count("Scan on projection_dispatch_ready") == 1
    assert "generate_series" not in unindexed


def plan_of(cursor: Cursor[DictRow], *, position: int) -> str:
    statement = statement_of(DISPATCH_READY, entries_then(cursor, DISPATCH_READY))
    cursor.execute(SQL("EXPLAIN {}").format(statement), {"position": position, "limit": 20})
    return "\n".join(row["QUERY PLAN"] for row in cursor.fetchall())


class QuarantineEntry(StreamRow, frozen=True, kw_only=True):
    entered_version: int
    cause: str
    entered_position: int
    left_position: int | None = None
    left_by: str | None = None


class InQuarantine(Projection[QuarantineEntry]):
    """A list of one's own, of rows that derive from one stream; the newest are its first."""

    name = "in_quarantine"
    row_type = QuarantineEntry
    key_fields = ("attempt_id", "entered_version")
    listing = Listing(("entered_position",), descending=("entered_position",))

    def fold(self, row: QuarantineEntry | None, record: Record) -> QuarantineEntry | None:
        event, position, _ = record
        if isinstance(event, Quarantined):
            return QuarantineEntry(
                attempt_id=event.originator_id,
                version=event.originator_version,
                entered_version=event.originator_version,
                cause=event.cause.value,
                entered_position=position,
            )
        if row is None or row.left_position or not isinstance(event, QuarantineLifted | LeaseEnded):
            return row
        version, by = event.originator_version, event.recorded_by.role
        return replace(row, version=version, left_position=position, left_by=by)


class BusyEntry(PositionRow, frozen=True, kw_only=True):
    run_id: str
    entered_position: int
    left_position: int | None = None


class BusyRuns(Projection[BusyEntry]):
    """Likewise, of rows that mix streams."""

    name = "busy_runs"
    row_type = BusyEntry
    key_fields = ("run_id", "entered_position")
    listing = Listing(("run_id",))

    def key(self, event: AnyEvent) -> str:
        return event.run_id

    def fold(self, row: BusyEntry | None, record: Record) -> BusyEntry | None:
        event, position, _ = record
        if isinstance(event, LeaseGranted):
            return BusyEntry(run_id=event.run_id, position=position, entered_position=position)
        if row is None or row.left_position or not isinstance(event, LeaseEnded):
            return row
        return replace(row, position=position, left_position=position)


@pytest.mark.parametrize(
    ("projection", "order"),
    [
        (InQuarantine(), lambda row: -row.entered_position),
        (BusyRuns(), lambda row: row.run_id),
    ],
    ids=["of streams", "across streams"],
)
def test_a_list_of_ones_own_can_be_asked_as_of_then(
    database: Database, projection: Projection[Any], order: Any
) -> None:
    log = random_log(Random(5), attempt_count=20, act_count=900)
    end = log[-1].position
    with database.transaction() as cursor:
        table_of(projection).create(cursor)
        table_of(projection).apply(cursor, log)
        follow_to(database, cursor, projection, end)
    lists = ListReading(database)

    for position in [*range(0, end, 7), end]:
        rows = rows_of(projection, [record for record in log if record.position <= position])
        expected = sorted((row for row in rows if row.left_position is None), key=order)
        assert lists.listed(projection, position=position, limit=ALL) == expected

    assert lists.listed(projection, position=None, limit=ALL) == expected != []


def follow_to(
    database: Database, cursor: Cursor[DictRow], projection: Projection[Any], position: int
) -> None:
    tracking = ProjectionTracking(database)
    tracking.create(cursor)
    tracking.register(cursor, projection)
    tracking.advance(cursor, projection.name, position)


def test_a_followed_list_is_not_asked_beyond_its_followers_position(database: Database) -> None:
    mine = InQuarantine()
    with database.transaction() as cursor:
        table_of(mine).create(cursor)
        follow_to(database, cursor, mine, 7)
    lists = ListReading(database)

    assert lists.listed(mine, position=7, limit=1) == []
    with pytest.raises(PositionNotReached, match="'in_quarantine' at position 8: found it at 7"):
        lists.listed(mine, position=8, limit=1)


def test_what_is_no_list_cannot_be_asked(database: Database) -> None:
    with pytest.raises(InvalidInput, match="'workers' as a list: found no listing"):
        ListReading(database).listed(WORKERS, position=None, limit=1)


class Unordered(InQuarantine):
    listing = Listing(("priority",))


class UnmarkedEntry(StreamRow, frozen=True, kw_only=True):
    entered_position: int
    left_position: int | None = None


class Unmarked(InQuarantine):
    row_type: Any = UnmarkedEntry
    key_fields = ("attempt_id", "entered_position")


class GoneEntry(UnmarkedEntry, frozen=True, kw_only=True):
    entered_version: int
    left_position: int


class NeverOn(InQuarantine):
    row_type: Any = GoneEntry


class LeavingEntry(QuarantineEntry, frozen=True, kw_only=True):
    left_why: str


class LeftFromTheStart(InQuarantine):
    row_type: Any = LeavingEntry


class IndexedTwice(InQuarantine):
    indexes = (Index("active", ("cause",)),)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (Unordered(), "no field 'priority'"),
        (Unmarked(), "a field 'entered_version' of type int"),
        (NeverOn(), r"a field 'left_position' of type int \| None"),
        (LeftFromTheStart(), "'left_why' that cannot be None"),
        (IndexedTwice(), "an index named 'active'"),
    ],
)
def test_rows_that_cannot_be_a_list_are_refused(wrong: Projection[Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"the listing of projection .*{what}"):
        ProjectionTable(wrong)
