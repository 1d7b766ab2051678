"""Rebuilding beside everything that goes on."""

import os
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from recovery_journal.domain.errors import FoldFailed, RebuildUnderWay, UnknownEvent
from recovery_journal.domain.events import ReadyForDispatch
from recovery_journal.log.appender import append
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import (
    DISPATCH_READY,
    DispatchReady,
    DispatchReadyRow,
)
from recovery_journal.projections.projection import Record
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS, RecoveryContexts
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.following.tracking import FollowingState, ProjectionTracking
from recovery_journal.read_models.rebuild.check import Check
from recovery_journal.read_models.rebuild.progress import Phase, RebuildProgress
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from tests.domain.histories import granted, history, recovered
from tests.projections.rebuilding import described, follow, is_right, on_thread, rebuild, truncate
from tests.projections.writing import Source, Writer


@pytest.mark.parametrize("block_events", [1, 7, 5000])
def test_rebuilt_rows_are_the_rows_that_were_followed(writer: Writer, block_events: int) -> None:
    writer.write_random()
    follow(writer)
    before = {projection.name: writer.stored(projection) for projection in BUILT_IN}
    truncate(writer)

    report = rebuild(writer, block_events=block_events).run()

    after = {projection.name: writer.stored(projection) for projection in BUILT_IN}
    assert after == before
    assert report.event_count == len(writer.log())
    assert [it.row_count for it in report.projections] == [len(it) for it in before.values()]
    assert all(it.position == writer.log()[-1].position for it in report.projections)


def test_equal_rows_have_equal_digests_and_others_have_not(writer: Writer) -> None:
    writer.write_random()

    rebuild(writer).run()
    first = digests(writer)
    rebuild(writer, block_events=11).run()
    second = digests(writer)
    writer.write_random(seed=2)
    rebuild(writer).run()
    third = digests(writer)

    assert first == second
    assert all(left != right for left, right in zip(second, third, strict=True))


def digests(writer: Writer) -> list[tuple[int, str]]:
    return [(it.row_count, it.digest) for it in Check(writer.database).run()]


def test_an_empty_log_gives_empty_rows(writer: Writer) -> None:
    report = rebuild(writer).run()

    nothing = [0] * len(BUILT_IN)
    assert (report.event_count, [it.row_count for it in report.projections]) == (0, nothing)
    assert [it.position for it in report.projections] == nothing
    writer.write_random()
    follow(writer)
    assert is_right(writer)


def test_one_long_stream_is_folded_block_by_block(writer: Writer) -> None:
    losses = [recovered(lost_epoch=2 * no - 1, recovery_no=no) for no in range(1, 120)]
    happenings = [happening for loss in losses for happening in loss]
    with writer.database.transaction() as cursor:
        append(history(granted(), *happenings), cursor)

    report = rebuild(writer, block_events=13).run()

    assert report.event_count == 596
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    assert len(writer.stored(RECOVERY_CONTEXTS)) == 119


def test_a_rebuilt_table_has_the_indexes_and_the_names_of_a_new_one(writer: Writer) -> None:
    writer.write_random()
    before = described(writer)

    rebuild(writer).run()
    rebuild(writer).run()

    assert described(writer) == before


def test_progress_is_told_from_the_first_event_to_the_end(writer: Writer) -> None:
    writer.write_random()
    told: list[RebuildProgress] = []

    rebuild(writer, process_count=1, block_events=50, on_progress=told.append).run()

    counts = [it.event_count for it in told]
    assert counts == sorted(counts)
    # Both readings are half of the way each.
    assert counts[:2] == [0, 25]
    assert counts[-1] == len(writer.log())
    assert all(it.event_count <= it.total for it in told)
    assert {it.phase for it in told} == set(Phase) - {Phase.CHECKING}
    assert told[-1].phase is Phase.DONE


class FailsLate(RecoveryContexts):
    def fold(self, row: Any, record: Record) -> Any:
        if record.position > 150:
            raise KeyError("late")
        return super().fold(row, record)


def test_a_failed_rebuild_leaves_the_old_rows_serving(writer: Writer) -> None:
    writer.write_random()
    follow(writer)
    before = writer.stored(RECOVERY_CONTEXTS)

    with pytest.raises(FoldFailed, match=r"position \d+ .*KeyError: 'late'"):
        rebuild(writer, projections=[FailsLate()], block_events=20).run()

    assert writer.stored(RECOVERY_CONTEXTS) == before
    follow(writer)
    rebuild(writer).run()
    assert writer.stored(RECOVERY_CONTEXTS) == before


def test_an_event_that_cannot_be_read_stops_a_rebuild_and_names_its_place(writer: Writer) -> None:
    writer.write_random(act_count=60)
    before = writer.stored(DISPATCH_READY)
    with writer.database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
            "VALUES ('strange', 1, 'unheard-of', '{}')"
        )

    with pytest.raises(UnknownEvent, match=r"position \d+: found event 'unheard-of'"):
        rebuild(writer).run()

    assert writer.stored(DISPATCH_READY) == before


def test_a_rebuild_lets_a_stopped_projection_go_on(writer: Writer) -> None:
    writer.write_random(act_count=60)
    tracking = ProjectionTracking(writer.database)
    with writer.database.transaction() as cursor:
        tracking.stop(cursor, "workers", "broken")

    rebuild(writer).run()

    assert {place.state for place in tracking.all()} == {FollowingState.FOLLOWING}


def test_the_second_of_two_rebuilds_is_told_of_the_first(writer: Writer, server_dsn: str) -> None:
    writer.write_random(act_count=60)
    second = Database(server_dsn, writer.database.schema)
    refusals: list[RebuildUnderWay] = []

    def start_another(progress: RebuildProgress) -> None:
        if progress.phase is Phase.INDEXING:
            with pytest.raises(RebuildUnderWay, match=str(os.getpid())) as raised:
                Rebuild(second, writer.reader).run()
            refusals.append(raised.value)

    on_thread(lambda: rebuild(writer, on_progress=start_another).run())

    assert len(refusals) == 1
    Rebuild(second, writer.reader).run()
    second.close()


def test_readers_see_the_old_rows_until_the_switch(writer: Writer) -> None:
    writer.write_random()
    follow(writer)
    stored = writer.stored(WORKERS)
    seen: list[tuple[Phase, bool]] = []

    def look(progress: RebuildProgress) -> None:
        if progress.projection in (None, "workers"):
            seen.append((progress.phase, writer.stored(WORKERS) == stored))

    rebuild(writer, on_progress=look).run()

    assert len(seen) > 4
    assert all(is_same for _, is_same in seen)


def test_a_rebuild_under_inline_writers_and_a_follower_ends_in_the_right_rows(
    writer: Writer, server_dsn: str
) -> None:
    writer.write_random()
    databases = [Database(server_dsn, writer.database.schema) for _ in range(3)]
    stop = threading.Event()
    errors: list[BaseException] = []

    def write(number: int) -> None:
        other = Writer(databases[number])
        seed = 1_000_000 * (number + 1)  # no writer ever comes to the seeds of the next
        while not stop.is_set():
            seed += 1
            # One of the two is an old program that leaves its rows to the follower.
            other.write_random(seed=seed, act_count=30, is_inline=number == 0)

    def guarded(act: Any, *args: Any) -> None:
        try:
            act(*args)
        except BaseException as error:  # noqa: BLE001 — handed to the test
            errors.append(error)

    following = Follower(Source(databases[2], writer.reader))
    threads = [
        threading.Thread(target=guarded, args=(write, 0)),
        threading.Thread(target=guarded, args=(write, 1)),
        threading.Thread(target=guarded, args=(following.run,)),
    ]
    for thread in threads:
        thread.start()

    reports = [rebuild(writer, block_events=100).run() for _ in range(4)]

    stop.set()
    following.stop()
    for thread in threads:
        thread.join()
    assert errors == []
    assert reports[0].event_count < reports[-1].event_count
    follow(writer)
    assert is_right(writer)
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    for database in databases:
        database.close()


class ShortRow(DispatchReady):
    version = 2

    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        after = super().fold(row, record)
        if after is not None and isinstance(record.event, ReadyForDispatch):
            return replace(after, priority=after.priority + 1)
        return after


def test_a_changed_fold_is_put_in_place_by_a_rebuild(writer: Writer) -> None:
    writer.write_random()
    changed = ShortRow()

    rebuild(writer, projections=[changed]).run()

    assert writer.stored(changed) == writer.expected(changed) != writer.expected(DISPATCH_READY)
    versions = {it.projection: it.fold_version for it in ProjectionTracking(writer.database).all()}
    assert versions == {it.name: 1 for it in BUILT_IN} | {"dispatch_ready": 2}


def test_a_projection_that_the_schema_does_not_know_is_made_by_a_rebuild(writer: Writer) -> None:
    class Mine(DispatchReady):
        name = "mine"

    writer.write_random()

    rebuild(writer, projections=[Mine()]).run()

    assert writer.stored(Mine()) == writer.expected(Mine()) != []


class Halts(Exception):
    """What breaks a rebuild off."""


def test_a_rebuild_of_others_clears_away_what_one_that_was_broken_off_has_left(
    writer: Writer,
) -> None:
    writer.write_random()

    def halt(progress: RebuildProgress) -> None:
        if progress.phase is Phase.INDEXING:
            raise Halts

    with pytest.raises(Halts):
        rebuild(writer, projections=[RECOVERY_CONTEXTS, WORKERS], on_progress=halt).run()

    rebuild(writer, projections=[WORKERS]).run()

    with writer.database.cursor() as cursor:
        left = cursor.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
            "AND tablename ~ '__(shadow|old)$'"
        ).fetchall()
    assert left == []
