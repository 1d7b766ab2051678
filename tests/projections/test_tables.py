"""The tables of projections: what goes in comes out, and older rows do nothing."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain.errors import InvalidInput, RowUnstorable
from recovery_journal.domain.events import ReadyForDispatch
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.moments import MOMENTS
from recovery_journal.projections.projection import (
    Index,
    PositionRow,
    Projection,
    Record,
    StreamRow,
)
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.read_models.tables.projection_table import ProjectionTable, table_of
from tests.projections.logs import random_log, rows_of

every_projection = pytest.mark.parametrize("projection", BUILT_IN, ids=lambda it: it.name)


class Colour(StrEnum):
    RED = "red"
    BLUE = 'b"l\\u\n'


class Pair(Struct, frozen=True):
    left: str
    right: int | None = None


class MotleyRow(StreamRow, frozen=True, kw_only=True):
    no: int
    text: str
    maybe_text: str | None
    number: float
    is_so: bool
    at: datetime
    colour: Colour | None
    pair: Pair | None
    pairs: tuple[Pair, ...]
    counts: dict[str, int]


class Motley(Projection[MotleyRow]):
    name = "motley"
    row_type = MotleyRow
    key_fields = ("attempt_id", "no")

    def fold(self, row: MotleyRow | None, record: Record) -> MotleyRow | None:
        raise NotImplementedError


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
pairs = st.builds(Pair, texts, st.none() | st.integers(-(2**53), 2**53))
motley_rows = st.builds(
    MotleyRow,
    attempt_id=texts,
    version=st.integers(0, 2**63 - 1),
    no=st.integers(-(2**63), 2**63 - 1),
    text=texts,
    maybe_text=st.none() | texts,
    number=st.floats(allow_nan=False, allow_infinity=False),
    is_so=st.booleans(),
    at=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001 — hypothesis takes naive bounds
    colour=st.none() | st.sampled_from(Colour),
    pair=st.none() | pairs,
    pairs=st.lists(pairs, max_size=2).map(tuple),
    counts=st.dictionaries(texts, st.integers(0, 9), max_size=2),
)
any_rows = st.lists(motley_rows, max_size=8, unique_by=lambda row: (row.attempt_id, row.no)).map(
    lambda rows: sorted(rows, key=lambda row: (row.attempt_id, row.no))
)


@pytest.fixture
def motley(database: Database) -> ProjectionTable[MotleyRow]:
    table = ProjectionTable(Motley())
    with database.transaction() as cursor:
        table.create(cursor)
    return table


def copy_into(table: ProjectionTable[MotleyRow]) -> Callable[[Any, list[MotleyRow]], None]:
    return lambda cursor, rows: table.copy_csv(cursor, [table.form.to_csv(rows)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=any_rows)
def test_rows_come_out_as_they_went_in_whichever_way_they_go(
    database: Database, motley: ProjectionTable[MotleyRow], rows: list[MotleyRow]
) -> None:
    for put_in in (copy_into(motley), motley.upsert):
        with database.transaction() as cursor:
            cursor.execute("TRUNCATE projection_motley")

            put_in(cursor, rows)

            assert list(motley.rows(cursor, page_rows=3)) == rows


def test_a_nul_that_postgresql_cannot_hold_becomes_a_replacement_character(
    database: Database, motley: ProjectionTable[MotleyRow]
) -> None:
    row = motley_row(text="a\0\\u0000\\\0", pairs=(Pair("\0"),), counts={"\0n": 1})

    for put_in in (copy_into(motley), motley.upsert):
        with database.transaction() as cursor:
            cursor.execute("TRUNCATE projection_motley")
            put_in(cursor, [row])
            (found,) = motley.rows(cursor)

        assert found.text == "a\ufffd\\u0000\\\ufffd"
        assert (found.pairs, found.counts) == ((Pair("\ufffd"),), {"\ufffdn": 1})
        assert motley.form.to_bytes(found) == motley.form.to_bytes(row)


@pytest.mark.parametrize("version", [1, 2])
def test_a_row_that_is_not_newer_changes_nothing(
    database: Database, motley: ProjectionTable[MotleyRow], version: int
) -> None:
    stored = motley_row(version=2, text="stored")

    with database.transaction() as cursor:
        motley.upsert(cursor, [stored])
        motley.upsert(cursor, [replace(stored, version=version, text="late")])

        assert list(motley.rows(cursor)) == [stored]


def test_the_newest_row_of_a_key_is_the_one_that_comes_last_in_key_order(
    database: Database, motley: ProjectionTable[MotleyRow]
) -> None:
    rows = [motley_row(attempt_id=name, no=no) for name in ("a", "b", "ü") for no in (9, 10, 11)]

    with database.transaction() as cursor:
        motley.upsert(cursor, rows)
        newest = motley.newest(cursor, ["a", "gone", "ü"])

    assert newest == {"a": rows[2], "ü": rows[8]}


@every_projection
def test_batches_end_in_the_rows_of_a_fold_from_scratch(
    database: Database, projection: Projection[Any]
) -> None:
    chance = Random(11)
    log = random_log(chance, attempt_count=20, act_count=900)
    table = table_of(projection)
    with database.transaction() as cursor:
        table.create(cursor)

    rest = log
    while rest:
        size = chance.randrange(1, 60)
        with database.transaction() as cursor:
            table_of(projection).apply(cursor, rest[:size])
            # The batch comes again.
            assert table_of(projection).apply(cursor, rest[:size]) == 0
        rest = rest[size:]

    with database.transaction() as cursor:
        found = [table.form.to_bytes(row) for row in table.rows(cursor, page_rows=7)]
    assert found == [table.form.to_bytes(row) for row in rows_of(projection, log)]
    assert len(found) > 2 or projection is MOMENTS  # one of them stands for many events


def test_the_list_in_dispatch_order_is_read_from_its_index(database: Database) -> None:
    table = table_of(DISPATCH_READY)
    log = random_log(Random(3), attempt_count=30, act_count=900)
    with database.transaction() as cursor:
        table.create(cursor)
        table_of(DISPATCH_READY).apply(cursor, log)
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")

        plan = cursor.execute(
            "EXPLAIN SELECT * FROM projection_dispatch_ready WHERE left_position IS NULL "
            "ORDER BY priority DESC, ready_at, attempt_id LIMIT 10"
        ).fetchall()

    lines = [row["QUERY PLAN"] for row in plan]
    assert any("projection_dispatch_ready__active" in line for line in lines)
    assert not any("Sort" in line for line in lines)


class Tenants(PositionRow, frozen=True, kw_only=True):
    tenant: str
    ready_count: int = 0


class ReadyPerTenant(Projection[Tenants]):
    name = "ready_per_tenant"
    row_type = Tenants
    key_fields = ("tenant",)

    def key(self, event: Any) -> str | None:
        return event.tenant if isinstance(event, ReadyForDispatch) else None

    def fold(self, row: Tenants | None, record: Record) -> Tenants:
        row = row or Tenants(tenant=str(self.key(record.event)), position=0)
        return replace(row, position=record.position, ready_count=row.ready_count + 1)


def test_a_projection_of_ones_own_is_a_row_type_and_a_fold(database: Database) -> None:
    mine = ReadyPerTenant()
    log = random_log(Random(5), attempt_count=20, act_count=900)
    with database.transaction() as cursor:
        table_of(mine).create(cursor)

        table_of(mine).apply(cursor, log[:100])
        table_of(mine).apply(cursor, log[50:])

        found = {row.tenant: row.ready_count for row in table_of(mine).rows(cursor)}
    tenants = [r.event.tenant for r in log if isinstance(r.event, ReadyForDispatch)]
    assert found == {tenant: tenants.count(tenant) for tenant in tenants}
    assert len(found) == 2


def test_two_writers_of_the_same_keys_do_not_deadlock(database: Database) -> None:
    table = table_of(RECOVERY_CONTEXTS)
    log = random_log(Random(2), attempt_count=40, act_count=400)
    with database.transaction() as cursor:
        table.create(cursor)
    errors: list[Exception] = []
    start = threading.Barrier(2)

    def write(seed: int) -> None:
        chance = Random(seed)
        start.wait()
        try:
            for end in sorted(chance.sample(range(len(log)), 30)):
                with database.transaction() as cursor:
                    table_of(RECOVERY_CONTEXTS).apply(cursor, log[:end])
        except Exception as error:  # noqa: BLE001 — handed to the test
            errors.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    with database.transaction() as cursor:
        table_of(RECOVERY_CONTEXTS).apply(cursor, log)
        found = [table.form.to_bytes(row) for row in table.rows(cursor)]
    assert found == [table.form.to_bytes(row) for row in rows_of(RECOVERY_CONTEXTS, log)]


@pytest.mark.parametrize("name", ["", "Upper", "a__b", "_a", "a_", "x" * 31, 'a"; DROP', "ü"])
def test_a_name_that_postgresql_would_not_keep_is_refused(name: str) -> None:
    class Misnamed(Motley):
        pass

    Misnamed.name = name

    with pytest.raises(InvalidInput, match="name of projection Misnamed"):
        ProjectionTable(Misnamed())


def test_the_name_of_an_index_is_held_to_the_same() -> None:
    class Misnamed(Motley):
        indexes: ClassVar = (Index("x" * 13, ("no",)),)

    with pytest.raises(InvalidInput, match="name of projection Misnamed"):
        ProjectionTable(Misnamed())


def test_a_number_too_large_for_its_column_is_an_error_and_not_another_number(
    database: Database, motley: ProjectionTable[MotleyRow]
) -> None:
    with (
        pytest.raises(RowUnstorable, match="out of range"),
        database.transaction() as cursor,
    ):
        motley.upsert(cursor, [motley_row(version=2**63)])


def motley_row(**changes: Any) -> MotleyRow:
    row = MotleyRow(
        attempt_id="a",
        version=1,
        no=1,
        text="",
        maybe_text=None,
        number=0.5,
        is_so=True,
        at=datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
        colour=None,
        pair=None,
        pairs=(),
        counts={},
    )
    return replace(row, **changes)
