"""Times and the positions that they mean, with clocks that go back and follow nobody's order."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.resources import files
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery_journal.domain.errors import InvalidInput, StoreBusy
from recovery_journal.log.appender import append
from recovery_journal.log.reader import SettledReader
from recovery_journal.monitoring.positions import Positions
from recovery_journal.postgres.database import Database
from recovery_journal.projections.moments import BLOCK_POSITIONS, MOMENTS
from recovery_journal.projections.projection import Record
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.tables.projection_table import table_of
from tests.domain.histories import granted, history
from tests.projections.logs import BEGINNING, random_log, rows_of
from tests.projections.rebuilding import follow, on_thread, rebuild
from tests.projections.writing import Writer

SOME_EVENT = random_log(Random(1))[0].event

# Seconds after the beginning at which the clock stood; few, so that it stands still and goes back.
clocks = st.integers(0, 20)
steps = st.integers(1, 700)
a_log = st.lists(st.tuples(steps, clocks), min_size=1, max_size=25)


def at(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)


def placed(log: Sequence[tuple[int, int]]) -> list[Record]:
    position, records = 0, []
    for step, clock in log:
        position += step
        records.append(Record(SOME_EVENT, position, at(clock)))
    return records


def position_at(records: Sequence[Record], moment: datetime) -> int:
    """The plainest reading: the last position before the latest time so far passes the moment."""
    position = 0
    latest = moment
    for record in records:
        latest = max(latest, record.recorded_at)
        if latest > moment:
            break
        position = record.position
    return position


@given(a_log)
def test_a_moment_says_the_latest_time_up_to_the_last_event_of_its_block(
    log: list[tuple[int, int]],
) -> None:
    records = placed(log)

    rows = rows_of(MOMENTS, records)

    last_of_block = {it.position // BLOCK_POSITIONS: it.position for it in records}
    assert {row.block_no: row.position for row in rows} == last_of_block
    for row in rows:
        times = [it.recorded_at for it in records if it.position <= row.position]
        assert row.latest_at == max(times)


@given(a_log, clocks)
def test_the_position_of_a_time_is_in_the_block_after_the_last_moment_not_later(
    log: list[tuple[int, int]], clock: int
) -> None:
    records = placed(log)
    rows = rows_of(MOMENTS, records)

    known = bisect_right([row.latest_at for row in rows], at(clock))

    found = position_at(records, at(clock))
    assert found >= (rows[known - 1].position if known else 0)
    assert known == len(rows) or found < rows[known].position


SKIPPED = "postgres/accepted_servers.sql"


@pytest.fixture
def bare_log(database: Database) -> Database:
    """A log of positions and times alone, which the real one would not let us set."""
    tracking = ProjectionTracking(database)
    with database.transaction() as cursor:
        cursor.execute(
            "CREATE TABLE journal_events (notification_id bigint PRIMARY KEY, "
            "recorded_at timestamptz NOT NULL)"
        )
        cursor.execute(files("recovery_journal").joinpath(SKIPPED).read_bytes())
        table_of(MOMENTS).create(cursor)
        tracking.create(cursor)
        tracking.register(cursor, MOMENTS)
    return database


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(log=a_log, followed=st.integers(0, 25))
def test_a_time_means_the_same_position_however_far_the_moments_are_followed(
    bare_log: Database, log: list[tuple[int, int]], followed: int
) -> None:
    records = placed(log)
    with bare_log.transaction() as cursor:
        cursor.execute("TRUNCATE journal_events, projection_moments")
        for record in records:
            cursor.execute(
                "INSERT INTO journal_events VALUES (%s, %s)", (record.position, record.recorded_at)
            )
        known = records[:followed]
        table_of(MOMENTS).apply(cursor, known)
        upto = known[-1].position if known else 0
        ProjectionTracking(bare_log).advance(cursor, "moments", upto)

    # A reader does not expect a log to shrink, as this one does from example to example.
    fresh = Positions(bare_log, SettledReader(bare_log))
    found = {second: fresh.at(at(second + 0.5)) for second in range(-1, 21)}

    assert found == {second: position_at(records, at(second + 0.5)) for second in found}


def test_what_the_moments_know_is_not_read_again(bare_log: Database) -> None:
    records = [Record(SOME_EVENT, 600 * no, at(no)) for no in range(1, 20)]
    with bare_log.transaction() as cursor:
        table_of(MOMENTS).apply(cursor, records)
        ProjectionTracking(bare_log).advance(cursor, "moments", records[-1].position)
        # Nothing but the newest events, and one that would be found by who began to read earlier.
        for position, seconds in [(7001, 15), *((600 * no, no) for no in range(13, 20))]:
            cursor.execute("INSERT INTO journal_events VALUES (%s, %s)", (position, at(seconds)))

    found = Positions(bare_log, SettledReader(bare_log)).at(at(14.5))

    assert found == 600 * 14


def test_times_mean_the_positions_that_the_log_shows(writer: Writer) -> None:
    writer.write_random(act_count=60)
    positions, log = Positions(writer.database, writer.reader), writer.log()
    times = [record.recorded_at for record in log]
    expected = [position_at(log, time) for time in times]

    before = [positions.at(time) for time in times]
    follow(writer)
    followed = [positions.at(time) for time in times]
    rebuild(writer).run()
    rebuilt = [positions.at(time) for time in times]

    assert before == followed == rebuilt == expected
    assert positions.at(times[0] - timedelta(days=1)) == 0
    assert positions.at(times[-1] + timedelta(days=1)) == log[-1].position
    assert [positions.time_of(record.position) for record in log] == times
    assert positions.time_of(0) is None


def test_an_empty_log_has_no_position_but_0(writer: Writer) -> None:
    positions = Positions(writer.database, writer.reader)

    assert positions.at(BEGINNING) == positions.at(0) == 0
    with pytest.raises(InvalidInput, match="found 1, needed at most 0, the last one in the log"):
        positions.at(1)


def test_nobody_looks_at_what_may_still_change(writer: Writer, server_dsn: str) -> None:
    (event,) = history(granted())
    writer.write_random(act_count=20)
    settled = writer.log()[-1].position
    other = Database(server_dsn, writer.database.schema)
    positions = Positions(other, SettledReader(other))
    future = at(0) + timedelta(days=40_000)

    with writer.database.transaction() as cursor:
        append([event], cursor)
        on_thread(lambda: Writer(other).write_random(seed=2, act_count=20))
        last = positions_of(other)[-1]
        assert last > settled + 1

        times = [record.recorded_at for record in Writer(other).log()]
        assert [positions.at(time) for time in (times[-4], times[-1], future)] == [settled] * 3
        assert positions.at(settled) == settled
        with pytest.raises(StoreBusy, match=f"read as of position {last}: events below it"):
            positions.at(last)

    assert positions.at(last) == positions.at(future) == last
    other.close()


def positions_of(database: Database) -> list[int]:
    with database.cursor() as cursor:
        rows = cursor.execute("SELECT notification_id FROM journal_events ORDER BY 1").fetchall()
    return [row["notification_id"] for row in rows]


@pytest.mark.parametrize("wrong", [-1, 2**63, "5", True, datetime(2031, 1, 1)])  # noqa: DTZ001 - that is what is wrong with it
def test_what_is_neither_a_position_nor_a_time_is_refused(writer: Writer, wrong: object) -> None:
    positions = Positions(writer.database, writer.reader)

    with pytest.raises(InvalidInput, match="cannot accept at"):
        positions.at(wrong)  # type: ignore[arg-type]  # the point
