"""What a rebuild cannot take in, and what it must take: it stops with the place and the reason, the
old rows serve, and the next start goes on."""

import os
import re
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from psycopg import Rollback

from recovery_journal.domain.errors import (
    FoldFailed,
    InvalidInput,
    RebuildUnderWay,
    RecoveryJournalError,
)
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.log.appender import append
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.projection import Index, Record
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS, RecoveryContexts
from recovery_journal.projections.workers import WORKERS, Workers
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.progress import Phase, RebuildProgress
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from recovery_journal.read_models.schema import create_projections
from tests.domain.histories import granted, history, recovered
from tests.projections.rebuilding import (
    described,
    follow,
    is_right,
    on_thread,
    rebuild,
    small_ranges,
    truncate,
)
from tests.projections.writing import Writer
from tests.rules.scenes import until
from tests.servers import PrivateServer

alone_and_in_two = pytest.mark.parametrize("process_count", [1, 2])


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen ranges for the log of a test."""
    small_ranges(monkeypatch)


# -- an event that cannot be taken in ----------------------------------------------------------


class Broken:
    """A fold that cannot take in the events of one attempt, until it is mended."""

    attempt_id: str | None = None

    def fold(self, row: Any, record: Record) -> Any:
        if record.event.originator_id == self.attempt_id:
            raise KeyError("what was never there")
        return super().fold(row, record)  # type: ignore[misc]  # that of the class beside it


class BrokenContexts(Broken, RecoveryContexts):
    """Stream-keyed."""


class BrokenWorkers(Broken, Workers):
    """Its rows mix streams."""


def broken_at(broken: Any, writer: Writer) -> AnyEvent:
    """The fold fails at an attempt that began late, of whose events this is the first that it
    looks at."""
    log = [record.event for record in writer.log()]
    began = [event for event in log if event.originator_version == 1]
    broken.attempt_id = began[-3].originator_id
    first = broken.events or (type(began[-3]),)
    return next(
        event
        for event in log
        if event.originator_id == broken.attempt_id and isinstance(event, first)
    )


@alone_and_in_two
@pytest.mark.parametrize("kind", [BrokenContexts, BrokenWorkers])
def test_a_fold_that_fails_stops_the_rebuild_and_names_the_place(
    writer: Writer, kind: type[Any], process_count: int
) -> None:
    writer.write_random(act_count=1_000)
    follow(writer)
    rows = [writer.stored(projection) for projection in BUILT_IN]
    broken = kind()
    event = broken_at(broken, writer)

    with pytest.raises(FoldFailed) as raised:
        rebuild(writer, projections=[broken], process_count=process_count, block_events=20).run()

    said = str(raised.value)
    (position,) = [it.position for it in writer.log() if it.event == event]
    assert (raised.value.position, raised.value.tag) == (position, tag_of(event))
    assert f"attempt '{event.originator_id}'" in said
    assert f"projection '{broken.name}'" in said
    assert "KeyError: 'what was never there'" in said
    assert [writer.stored(projection) for projection in BUILT_IN] == rows
    writer.write_random(seed=2)
    follow(writer)
    assert is_right(writer)


@alone_and_in_two
@pytest.mark.parametrize("kind", [BrokenContexts, BrokenWorkers])
def test_the_next_start_of_a_mended_fold_goes_on(
    writer: Writer, kind: type[Any], process_count: int
) -> None:
    writer.write_random(act_count=1_000)
    truncate(writer)
    broken = kind()
    broken_at(broken, writer)
    options = {"projections": [broken], "process_count": process_count, "block_events": 20}
    with pytest.raises(FoldFailed):
        rebuild(writer, **options).run()
    broken.attempt_id = None

    report = rebuild(writer, **options).run()

    assert 0 < report.done_before < report.event_count == len(writer.log())
    assert writer.stored(broken) == writer.expected(broken)


def test_another_fold_begins_anew(writer: Writer) -> None:
    writer.write_random(act_count=1_000)
    broken = BrokenContexts()
    broken_at(broken, writer)
    with pytest.raises(FoldFailed):
        rebuild(writer, projections=[broken], process_count=1).run()

    report = rebuild(writer, projections=[NextContexts()], process_count=1).run()

    assert report.done_before == 0
    assert writer.stored(RECOVERY_CONTEXTS) == writer.expected(RECOVERY_CONTEXTS)


class NextContexts(RecoveryContexts):
    """Says that it means something else."""

    version = 2


def test_a_fold_with_another_index_takes_the_place_of_the_old_one_and_back(
    writer: Writer,
) -> None:
    writer.write_random()
    rebuild(writer).run()
    before = described(writer)

    rebuild(writer, projections=[IndexedContexts()]).run()
    rebuild(writer, projections=[BareContexts()]).run()
    rebuild(writer, projections=[RECOVERY_CONTEXTS]).run()

    assert described(writer) == before
    follow(writer)
    assert is_right(writer)


class IndexedContexts(RecoveryContexts):
    """One index more."""

    version = 2
    indexes: ClassVar[Any] = (*RecoveryContexts.indexes, Index("more", ("version",)))


class BareContexts(RecoveryContexts):
    """No index but its key."""

    version = 3
    indexes: ClassVar[Any] = ()


STRANGE = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES ('strange', 1, %(tag)s, %(state)s)
RETURNING notification_id AS position
"""


@alone_and_in_two
@pytest.mark.parametrize(
    ("tag", "state", "reason"),
    [
        ("unheard-of", b"{}", "found event 'unheard-of'.*'strange', version 1"),
        ("dispatched", b"no JSON", "'dispatched'.*'strange', version 1.*damaged"),
    ],
)
@pytest.mark.parametrize("projection", [RECOVERY_CONTEXTS, WORKERS], ids=["keyed", "mixed"])
def test_an_event_that_cannot_be_read_stops_the_rebuild_and_names_the_place(
    writer: Writer, projection: Any, tag: str, state: bytes, reason: str, process_count: int
) -> None:
    writer.write_random(act_count=500)
    follow(writer)
    rows = writer.stored(projection)
    with writer.database.cursor() as cursor:
        found = cursor.execute(STRANGE, {"tag": tag, "state": state}).fetchone()
    assert found is not None

    with pytest.raises(RecoveryJournalError, match=f"position {found['position']}.*{reason}"):
        rebuild(writer, projections=[projection], process_count=process_count).run()

    assert writer.stored(projection) == rows


# -- logs of every shape -------------------------------------------------------------------------


@alone_and_in_two
def test_an_empty_log_is_rebuilt_into_empty_rows(writer: Writer, process_count: int) -> None:
    report = rebuild(writer, process_count=process_count).run()

    found = [(it.position, it.row_count) for it in report.projections]
    assert (report.event_count, report.done_before, found) == (0, 0, [(0, 0)] * len(BUILT_IN))


def test_one_giant_stream_is_rebuilt_beside_small_ones(writer: Writer) -> None:
    writer.write_random(act_count=200)
    fill_with_one_stream(writer, 30_000)
    writer.write_random(seed=2, act_count=200)

    rebuild(writer, process_count=2).run()

    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)


def fill_with_one_stream(writer: Writer, event_count: int) -> None:
    """One attempt that is lost again and again."""
    losses = range(1, event_count // 5 + 1)
    lost = (recovered(lost_epoch=2 * no - 1, recovery_no=no) for no in losses)
    events = history(granted(), *(happening for loss in lost for happening in loss))
    with writer.database.transaction() as cursor:
        append(events, cursor)


SKIP = """
SELECT setval(pg_get_serial_sequence('journal_events', 'notification_id'), %(to)s)
"""


@alone_and_in_two
def test_a_log_with_gaps_is_rebuilt_and_its_events_are_counted(
    writer: Writer, process_count: int
) -> None:
    writer.write_random(act_count=200)
    with writer.database.cursor() as cursor:
        cursor.execute(SKIP, {"to": 200_000})
    for seed in range(2, 12):
        write_and_roll_back(writer, seed)
        writer.write_random(seed=seed, act_count=20)
    told: list[RebuildProgress] = []

    report = rebuild(writer, process_count=process_count, on_progress=told.append).run()

    assert is_right(writer)
    assert report.event_count == len(writer.log())
    assert told[-1].event_count == len(writer.log())
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)


def write_and_roll_back(writer: Writer, seed: int) -> None:
    events = history(granted(), *recovered(lost_epoch=1, recovery_no=1), attempt_id=f"no-{seed}")
    with writer.database.transaction() as cursor:
        append(events, cursor)
        raise Rollback  # which ends the transaction and goes no further


@alone_and_in_two
@pytest.mark.parametrize("block_events", [1, 50, 5_000])
def test_streams_that_go_on_behind_the_borders_of_ranges_are_folded_once_and_whole(
    writer: Writer, process_count: int, block_events: int
) -> None:
    for seed in range(3):
        writer.write_random(seed=seed, act_count=300)
    streams = {it.event.originator_id for it in writer.log()}
    truncate(writer)

    rebuild(writer, process_count=process_count, block_events=block_events).run()

    assert len(streams) > 50
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)


# -- progress ------------------------------------------------------------------------------------


@alone_and_in_two
def test_progress_never_falls_and_ends_at_the_length_of_the_log(
    writer: Writer, process_count: int
) -> None:
    writer.write_random(act_count=1_000)
    told: list[RebuildProgress] = []

    rebuild(writer, process_count=process_count, block_events=50, on_progress=told.append).run()

    counts = [it.event_count for it in told]
    assert counts == sorted(counts)
    # Once, though it is read twice: for rows of single streams, and for those that mix them.
    assert (counts[0], counts[-1], told[-1].total) == (0, *[len(writer.log())] * 2)


class Died(Exception):
    pass


def dying_in(phase: Phase, *, after_events: int = 0) -> Callable[[RebuildProgress], None]:
    def die(progress: RebuildProgress) -> None:
        if progress.phase is phase and progress.event_count >= after_events:
            raise Died

    return die


@pytest.mark.parametrize("phase", [it for it in Phase if it is not Phase.CHECKING])
def test_a_rebuild_broken_off_in_any_phase_is_gone_on_with(writer: Writer, phase: Phase) -> None:
    writer.write_random(act_count=1_000)
    truncate(writer)
    with pytest.raises(Died):
        rebuild(
            writer,
            process_count=1,
            block_events=50,
            on_progress=dying_in(phase, after_events=len(writer.log()) // 2),
        ).run()
    told: list[RebuildProgress] = []

    report = rebuild(writer, process_count=1, block_events=50, on_progress=told.append).run()

    is_over = phase is Phase.DONE
    assert (report.done_before > 0) is not is_over
    assert told[0].event_count == report.done_before
    assert {it.done_before for it in told} == {report.done_before}
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    if phase not in (Phase.FOLDING, Phase.DONE):
        assert report.done_before == len(writer.log())


# -- others --------------------------------------------------------------------------------------


def test_the_second_of_two_is_told_who_is_at_work_and_since_when(
    writer: Writer, server_dsn: str
) -> None:
    writer.write_random(act_count=1_000)
    second = Database(server_dsn, writer.database.schema)
    refusals: list[RebuildUnderWay] = []

    def start_another(progress: RebuildProgress) -> None:
        if progress.phase is Phase.DONE:
            return
        with pytest.raises(RebuildUnderWay) as raised:
            on_thread(lambda: Rebuild(second, writer.reader).run())
        refusals.append(raised.value)

    rebuild(writer, process_count=1, on_progress=start_another).run()

    with writer.database.cursor() as cursor:
        row = cursor.execute("SELECT to_char(now(), 'YYYY-MM-DD') AS today").fetchone()
    assert row is not None
    assert {it.process_id for it in refusals} == {os.getpid()}
    assert {it.host for it in refusals} == {socket.gethostname()}
    assert all(f"since {row['today']} " in str(it) for it in refusals)
    done = [re.findall(r"(\d+) of (\d+) ranges", str(it)) for it in refusals]
    assert done[0][0][0] == "0"
    assert done[-1][0] == (done[0][0][1],) * 2
    Rebuild(second, writer.reader).run()
    second.close()


VIEW = "CREATE VIEW mine AS SELECT attempt_id FROM projection_recovery_contexts"


def test_a_users_view_is_named_before_anything_is_folded(writer: Writer) -> None:
    writer.write_random()
    with writer.database.cursor() as cursor:
        cursor.execute(VIEW)
    told: list[RebuildProgress] = []

    with pytest.raises(InvalidInput, match="view mine"):
        rebuild(writer, on_progress=told.append).run()

    assert told == []
    with writer.database.cursor() as cursor:
        cursor.execute("DROP VIEW mine")
    rebuild(writer).run()
    assert is_right(writer)


def test_a_view_made_meanwhile_is_named_and_leaves_the_old_rows_serving(writer: Writer) -> None:
    writer.write_random()
    follow(writer)

    def make_view(progress: RebuildProgress) -> None:
        if progress.phase is Phase.INDEXING and not made:
            made.append(True)
            with writer.database.cursor() as cursor:
                cursor.execute(VIEW)

    made: list[bool] = []

    with pytest.raises(InvalidInput, match="view mine"):
        rebuild(writer, on_progress=make_view).run()

    assert shown_by_view(writer) == len(writer.stored(RECOVERY_CONTEXTS))
    with pytest.raises(InvalidInput, match="view mine"):
        rebuild(writer).run()
    with writer.database.cursor() as cursor:
        cursor.execute("DROP VIEW mine")
    rebuild(writer).run()
    assert is_right(writer)


def shown_by_view(writer: Writer) -> int:
    """How many rows; the view is of the table that readers see."""
    with writer.database.cursor() as cursor:
        row = cursor.execute("SELECT count(*) AS count FROM mine").fetchone()
        used = cursor.execute(
            "SELECT table_name AS name FROM information_schema.view_table_usage "
            "WHERE view_schema = current_schema() AND view_name = 'mine'"
        ).fetchall()
    assert row is not None
    assert [it["name"] for it in used] == ["projection_recovery_contexts"]
    count: int = row["count"]
    return count


def test_who_may_read_the_rows_may_read_them_after_a_rebuild(writer: Writer) -> None:
    writer.write_random()
    with writer.database.cursor() as cursor:
        cursor.execute("GRANT SELECT ON projection_workers TO PUBLIC")

    rebuild(writer).run()

    with writer.database.cursor() as cursor:
        grants = cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.role_table_grants "
            "WHERE table_schema = current_schema() AND grantee = 'PUBLIC'"
        ).fetchall()
    assert [it["table_name"] for it in grants] == ["projection_workers"]


def test_an_index_that_a_dead_process_is_still_making_is_waited_for(
    writer: Writer, server_dsn: str
) -> None:
    writer.write_random()
    other = Database(server_dsn, writer.database.schema)
    threads: list[threading.Thread] = []

    def make_index_meanwhile(progress: RebuildProgress) -> None:
        if progress.phase is Phase.INDEXING and not threads:
            threads.append(threading.Thread(target=lambda: make_index(other, made)))
            threads[0].start()
            assert made.wait(30)

    made = threading.Event()

    rebuild(writer, process_count=2, on_progress=make_index_meanwhile).run()

    threads[0].join()
    assert is_right(writer)
    other.close()


def make_index(database: Database, made: threading.Event) -> None:
    """As the server does for a client that is gone: it goes on to the end of the statement."""
    with database.transaction() as cursor:
        cursor.execute(
            "CREATE UNIQUE INDEX projection_recovery_contexts__shadow__key "
            "ON projection_recovery_contexts__shadow (attempt_id, recovery_no)"
        )
        made.set()
        blocked = "SELECT FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        until(lambda: cursor.execute(blocked).fetchone() is not None, "the rebuild to come by")


# -- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process_count", "phase", "how"),
    [
        (1, Phase.FOLDING, "immediate"),
        (2, Phase.FOLDING, "immediate"),
        (2, Phase.FOLDING, "killed"),
        (2, Phase.INDEXING, "immediate"),
        (1, Phase.CATCHING_UP, "killed"),
    ],
)
def test_a_server_that_is_restarted_meanwhile_is_waited_for(
    private_server: PrivateServer, process_count: int, phase: Phase, how: str
) -> None:
    database = Database(private_server.dsn, "journal")
    schemas.create(database, partial(create_projections, database))
    writer = Writer(database)
    writer.write_random(act_count=1_500)
    truncate(writer)
    log = writer.log()
    told: list[RebuildProgress] = []
    restarts = iter([how])

    def restart_once(progress: RebuildProgress) -> None:
        told.append(progress)
        if progress.phase is phase and progress.event_count >= len(log) // 2:
            for mode in restarts:
                restart(private_server, mode)

    report = rebuild(
        writer, process_count=process_count, block_events=10, on_progress=restart_once
    ).run()

    assert list(restarts) == []
    assert (report.event_count, report.done_before) == (len(log), 0)
    assert told[-1].event_count == len(log)
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    assert {it.position for it in ProjectionTracking(database).all()} == {log[-1].position}
    database.close()


def restart(server: PrivateServer, how: str) -> None:
    if how == "killed":
        server.kill()
    else:
        server.stop("immediate")
    server.start()
