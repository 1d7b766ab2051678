"""Programs with different folds at work on one journal: rows are of one fold, and always right."""

import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import Cursor

from recovery_journal.domain.errors import RowsOutdated
from recovery_journal.log.reader import Page, SettledReader
from recovery_journal.postgres.database import Database, one
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild import switch
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from recovery_journal.read_models.rebuild.switch import Switch
from recovery_journal.read_models.tables.projection_table import shadow_of, table_of
from tests.domain.histories import granted, history, recovered
from tests.projections.folds import Bare, Narrower, Shouting, Wider
from tests.projections.logs import random_log
from tests.projections.rebuilding import on_thread
from tests.projections.writing import Source, Writer

OTHERS: list[Projection[Any]] = [Shouting(), Wider(), Bare(), Narrower()]

every_other = pytest.mark.parametrize("other", OTHERS, ids=lambda it: type(it).__name__)


@pytest.fixture
def second_database(server_dsn: str, writer: Writer) -> Iterator[Database]:
    """The connections of another program."""
    database = Database(server_dsn, writer.database.schema)
    yield database
    database.close()


def rebuild(writer: Writer, projection: Projection[Any], **options: Any) -> None:
    Rebuild(writer.database, writer.reader, projections=[projection], **options).run()


def follow(writer: Writer, projection: Projection[Any]) -> None:
    Follower(writer, projections=[projection]).catch_up(30)


def is_right(writer: Writer, projection: Projection[Any]) -> bool:
    return writer.stored(projection) == writer.expected(projection) != []


def fold_of_the_rows(writer: Writer) -> int:
    place = ProjectionTracking(writer.database).find("dispatch_ready")
    assert place is not None
    return place.fold_version


# -- older programs continue after a switch --------------------------------------------------


@every_other
def test_a_program_that_finds_rows_of_another_fold_writes_none(
    writer: Writer, other: Projection[Any]
) -> None:
    writer.write_random(act_count=80)
    rebuild(writer, other)
    before = writer.stored(other)

    writer.write_random(seed=2, act_count=80)

    assert writer.stored(other) == before
    follow(writer, other)
    assert is_right(writer, other)


@every_other
def test_a_write_that_waited_for_the_switch_leaves_the_new_rows_alone(
    writer: Writer,
    second_database: Database,
    server_dsn: str,
    other: Projection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switch, "HOLD_S", 30.0)
    late = Writer(second_database)
    writer.write_random(act_count=80)
    late.write_random(seed=2, act_count=40)  # its statements are prepared
    events = list(history(granted(), *recovered(lost_epoch=1, recovery_no=1)))
    late.write(events[:4])
    waiting = threading.Thread(target=late.write, args=[events[4:]])

    def write_meanwhile(cursor: Cursor[Any]) -> None:
        waiting.start()
        wait_until_blocked_by(server_dsn, cursor.connection.info.backend_pid)

    with writer.database.transaction() as cursor:
        shadow_of(other).create(cursor)
        shadow_of(other).apply(cursor, writer.log())
    Switch(writer.database, writer.reader, other, upto=0, note=write_meanwhile).run()
    waiting.join(30)

    assert not waiting.is_alive()
    assert "a-1" not in [row.attempt_id for row in rows_of_table(writer, other)]
    follow(writer, other)
    assert is_right(writer, other)


def rows_of_table(writer: Writer, projection: Projection[Any]) -> list[Any]:
    with writer.database.cursor() as cursor:
        return list(table_of(projection).rows(cursor))


def wait_until_blocked_by(server_dsn: str, pid: int) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        pause = threading.Event()
        for _ in range(600):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                (pid,),
            ).fetchone()
            if row and row[0]:
                return
            pause.wait(0.05)
    raise AssertionError("no session waits for the switch")


class SwitchesBeforeReading(SettledReader):
    """Lets something happen between a follower's read of its position and of the log."""

    happening: Callable[[], None]

    def read(self, after: int, limit: int) -> Page:
        on_thread(self.happening)
        return super().read(after, limit)


def test_a_batch_that_was_begun_before_the_switch_is_not_folded_into_the_new_rows(
    writer: Writer, second_database: Database
) -> None:
    shouting = Shouting()
    writer.write_random(act_count=80)
    follow(writer, DISPATCH_READY)
    reader = SwitchesBeforeReading(second_database)

    def switch_and_continue() -> None:
        rebuild(writer, shouting)
        writer.write_random(seed=2, act_count=20)

    reader.happening = switch_and_continue
    following = Follower(Source(second_database, reader), projections=[DISPATCH_READY])

    assert following.step() == 0

    follow(writer, shouting)
    assert is_right(writer, shouting)


# -- newer programs run before it ----------------------------------------------------------------


@every_other
def test_a_newer_program_leaves_the_rows_to_the_older_until_it_has_rebuilt_them(
    writer: Writer, second_database: Database, other: Projection[Any]
) -> None:
    newer = Writer(second_database, other)
    problems: list[Exception] = []
    following = Follower(newer, projections=[other], on_problem=problems.append)
    writer.write_random(act_count=60)

    newer.write_random(seed=2, act_count=60)
    assert (following.step(), following.step()) == (0, 0)
    follow(writer, DISPATCH_READY)

    assert is_right(writer, DISPATCH_READY)
    assert [type(problem) for problem in problems] == [RowsOutdated]
    assert "recovery-journal rebuild dispatch_ready" in str(problems[0])

    rebuild(newer, other)
    newer.write_random(seed=3, act_count=60)
    writer.write_random(seed=4, act_count=60)
    following.catch_up(30)

    assert is_right(newer, other)


def test_a_newer_program_writes_inline_again_once_the_rows_are_its_own(
    writer: Writer, second_database: Database
) -> None:
    shouting = Shouting()
    newer = Writer(second_database, shouting)
    writer.write_random(act_count=60)
    newer.write_random(seed=2, act_count=60)

    rebuild(newer, shouting)
    newer.write_random(seed=3, act_count=60)

    assert is_right(newer, shouting)


# -- side by side --------------------------------------------------------------------------------


@every_other
def test_old_rows_serve_and_stay_right_while_new_ones_are_prepared(
    writer: Writer, second_database: Database, other: Projection[Any]
) -> None:
    older = Writer(second_database)
    writer.write_random(act_count=200)
    follow(writer, DISPATCH_READY)
    stood_side_by_side: list[bool] = []
    seeds = iter(range(100, 10_000))

    def meanwhile(_progress: object) -> None:
        if fold_of_the_rows(older) != DISPATCH_READY.version:
            return
        older.write_random(seed=next(seeds), act_count=10)
        follow(older, DISPATCH_READY)
        assert is_right(older, DISPATCH_READY)
        stood_side_by_side.append(has_shadow(older, other))

    rebuild(writer, other, block_events=50, on_progress=in_thread_of_its_own(meanwhile))

    assert True in stood_side_by_side
    assert fold_of_the_rows(writer) == other.version
    older.write_random(seed=99, act_count=60)
    follow(writer, other)
    assert is_right(writer, other)


def has_shadow(writer: Writer, projection: Projection[Any]) -> bool:
    with writer.database.cursor() as cursor:
        name = {"name": shadow_of(projection).name}
        found = cursor.execute("SELECT to_regclass(%(name)s) IS NOT NULL AS found", name)
        return bool(one(found)["found"])


def in_thread_of_its_own(function: Any) -> Any:
    """The other program does not use the connections of the rebuild."""

    def call(progress: object) -> None:
        on_thread(lambda: function(progress))

    return call


# -- what was left out is brought ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_what_one_program_left_out_another_brings_before_what_comes_after(
    writer: Writer, seed: int
) -> None:
    chance = Random(seed)
    log = random_log(chance, attempt_count=8, act_count=150)

    for record in log:
        writer.write([record.event], is_inline=chance.random() < 0.5)

    follow(writer, DISPATCH_READY)
    assert is_right(writer, DISPATCH_READY)
