"""Following: rows and position together, once, in order, whatever breaks in between."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from recovery_journal.domain.errors import PositionNotReached, ServerUnavailable
from recovery_journal.domain.events import ReadyForDispatch
from recovery_journal.library_adapter import LibraryTracking
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.projection import PositionRow, Projection, Record
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.following.tracking import (
    Followed,
    FollowingState,
    ProjectionTracking,
)
from recovery_journal.read_models.schema import create_projections
from recovery_journal.read_models.tables.projection_table import table_of
from tests.projections.writing import Source, Writer
from tests.servers import PrivateServer


def places(writer: Writer) -> dict[str, Followed]:
    return {place.projection: place for place in ProjectionTracking(writer.database).all()}


def follower(writer: Writer, **options: Any) -> Follower:
    return Follower(writer, **options)


def test_followed_rows_are_those_of_a_fold_from_scratch(writer: Writer) -> None:
    writer.write_random()

    position = follower(writer, batch_events=37).catch_up(30)

    assert position == writer.log()[-1].position
    for projection in BUILT_IN:
        assert places(writer)[projection.name].position == position
        assert writer.stored(projection) == writer.expected(projection) != []


def test_rows_that_an_older_program_did_not_write_inline_are_mended(writer: Writer) -> None:
    writer.write_random(is_inline=False)
    assert writer.stored(DISPATCH_READY) == []

    follower(writer).catch_up(30)

    assert writer.stored(DISPATCH_READY) == writer.expected(DISPATCH_READY)


def test_a_round_without_news_does_nothing(writer: Writer) -> None:
    writer.write_random(act_count=40)
    following = follower(writer)
    following.catch_up(30)
    before = places(writer)

    assert following.step() == 0

    assert places(writer) == before


def test_an_empty_log_is_caught_up_with_at_once(writer: Writer) -> None:
    assert follower(writer).catch_up(0) == 0


class Killed(Exception):
    pass


class DiesBeforeCommit(Database):
    """A database whose process dies in its n-th transaction, before it commits."""

    transactions_left = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with super().transaction() as cursor:
            yield cursor
            self.transactions_left -= 1
            if self.transactions_left == 0:
                raise Killed


@pytest.mark.parametrize("death", range(1, 8))
def test_a_follower_killed_before_its_commit_leaves_rows_and_position_together(
    writer: Writer, server_dsn: str, death: int
) -> None:
    writer.write_random(act_count=150)
    mortal = DiesBeforeCommit(server_dsn, writer.database.schema)
    mortal.transactions_left = death

    with pytest.raises(Killed):
        Follower(Source(mortal, writer.reader), batch_events=20).catch_up(30)

    followed: tuple[Projection[Any], ...] = (RECOVERY_CONTEXTS, WORKERS)
    for projection in followed:
        position = places(writer)[projection.name].position
        assert writer.stored(projection) == writer.expected(projection, upto=position)
    mortal.close()
    follower(writer).catch_up(30)
    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)


def test_of_two_followers_one_waits(writer: Writer, server_dsn: str) -> None:
    writer.write_random(act_count=100)
    other = Database(server_dsn, writer.database.schema)
    second = Follower(Source(other, writer.reader))
    tracking = ProjectionTracking(writer.database)

    with writer.database.transaction() as cursor:
        for projection in BUILT_IN:
            assert tracking.lock(cursor, projection.name) is not None
        folded_meanwhile = in_thread(second.step)

    assert folded_meanwhile == 0
    assert second.step() > 0
    other.close()


def test_two_followers_at_once_fold_every_event_once(writer: Writer, server_dsn: str) -> None:
    writer.write_random(act_count=600)
    databases = [Database(server_dsn, writer.database.schema) for _ in range(2)]
    followers = [Follower(Source(it, writer.reader), batch_events=10) for it in databases]
    threads = [threading.Thread(target=it.catch_up, args=(60,)) for it in followers]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for projection in BUILT_IN:
        assert writer.stored(projection) == writer.expected(projection)
    for it in databases:
        it.close()


class NarrowRow(PositionRow, frozen=True, kw_only=True):
    tenant: str
    size: int


class Narrow(Projection[NarrowRow]):
    """Fails at the n-th event made ready: by raising, or by a row that no column can hold."""

    name = "narrow"
    row_type = NarrowRow
    key_fields = ("tenant",)
    fails_at = 3
    is_raising = False

    def key(self, event: Any) -> str | None:
        return event.kind if isinstance(event, ReadyForDispatch) else None

    def fold(self, row: NarrowRow | None, record: Record) -> NarrowRow:
        key = str(self.key(record.event))
        row = row or NarrowRow(tenant=key, position=0, size=0)
        if row.size + 1 == self.fails_at:
            if self.is_raising:
                raise KeyError(key)
            return replace(row, position=record.position, size=2**70)
        return replace(row, position=record.position, size=row.size + 1)


@pytest.mark.parametrize("is_raising", [True, False])
@pytest.mark.parametrize("batch_events", [1, 7, 1000])
def test_an_event_that_a_projection_cannot_take_in_stops_it_alone(
    writer: Writer, batch_events: int, *, is_raising: bool
) -> None:
    narrow = Narrow()
    narrow.is_raising = is_raising
    with writer.database.transaction() as cursor:
        table_of(narrow).create(cursor)
        ProjectionTracking(writer.database).register(cursor, narrow)
    writer.write_random(act_count=900)
    problems: list[Exception] = []
    following = follower(
        writer,
        projections=(*BUILT_IN, narrow),
        batch_events=batch_events,
        on_problem=problems.append,
    )

    while following.step():
        pass

    stopped = places(writer)["narrow"]
    bad = third_of_a_kind(writer.log())
    assert (stopped.state, stopped.position) == (FollowingState.STOPPED, bad.position - 1)
    assert f"position {bad.position} " in str(stopped.error)
    assert "'ready-for-dispatch'" in str(stopped.error)
    assert repr(bad.event.originator_id) in str(stopped.error)
    assert [str(problem) for problem in problems] == [stopped.error]
    assert writer.stored(narrow) == writer.expected(narrow, upto=stopped.position) != []
    for projection in BUILT_IN:
        assert places(writer)[projection.name].state is FollowingState.FOLLOWING
        assert writer.stored(projection) == writer.expected(projection)


def test_a_stopped_projection_goes_on_once_a_new_program_can_take_the_event_in(
    writer: Writer,
) -> None:
    # Later than in the corpus, so that the mended fold is the same to a look at its rows.
    narrow, mended = Narrow(), Narrow()
    in_corpus = Counter(narrow.key(event) for event, _, _ in corpus() if narrow.key(event))
    narrow.fails_at, mended.fails_at = max(in_corpus.values()) + 1, 0
    with writer.database.transaction() as cursor:
        table_of(narrow).create(cursor)
        ProjectionTracking(writer.database).register(cursor, narrow)
    writer.write_random(act_count=900)
    follower(writer, projections=[narrow]).step()
    assert places(writer)["narrow"].state is FollowingState.STOPPED

    follower(writer, projections=[mended]).catch_up(30)

    assert (places(writer)["narrow"].state, places(writer)["narrow"].error) == ("following", None)
    assert writer.stored(mended) == writer.expected(mended)


@pytest.mark.parametrize(
    ("tag", "state"), [("unheard-of", b"{}"), ("dispatched", b"{"), ("dispatched", b"\xff")]
)
def test_an_event_that_cannot_be_read_stops_its_followers_before_it(
    writer: Writer, tag: str, state: bytes
) -> None:
    writer.write_random(act_count=60)
    with writer.database.transaction() as cursor:
        row = cursor.execute(
            "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
            "VALUES ('strange', 1, %s, %s) RETURNING notification_id",
            (tag, state),
        ).fetchone()
    assert row is not None
    bad = row["notification_id"]
    writer.write_random(seed=2, act_count=20)

    following = follower(writer)
    while following.step():
        pass

    for place in places(writer).values():
        assert place.state is FollowingState.STOPPED
        assert place.position == bad - 1
        assert f"position {bad}: " in str(place.error)
        assert repr(tag) in str(place.error)


def test_rows_of_another_version_are_left_alone(writer: Writer) -> None:
    class Newer(type(WORKERS)):  # type: ignore[misc]  # a later version of the same class
        version = 2

    writer.write_random(act_count=40)
    problems: list[Exception] = []
    following = follower(writer, projections=[Newer()], on_problem=problems.append)

    assert (following.step(), following.step()) == (0, 0)

    assert places(writer)["workers"].position == 0
    assert ["version 2" in str(problem) for problem in problems] == [True]


def test_catching_up_in_vain_says_where_it_stands(writer: Writer) -> None:
    writer.write_random(act_count=40)

    with pytest.raises(PositionNotReached, match="found it at 0 after 0 s"):
        follower(writer).catch_up(0)


def test_a_restarted_server_is_a_problem_and_no_end(private_server: PrivateServer) -> None:
    database = Database(private_server.dsn, "followed")
    writer = made_writer(database)
    writer.write_random(act_count=40)
    is_away = threading.Event()
    problems: list[Exception] = []

    def note(problem: Exception) -> None:
        problems.append(problem)
        is_away.set()

    following = follower(writer, on_problem=note)
    running = threading.Thread(target=following.run)
    running.start()
    LibraryTracking(database).wait("workers", writer.log()[-1].position, timeout=30)

    private_server.stop()
    assert is_away.wait(30)
    private_server.start()
    # The old connection of this thread is gone; only the follower has to get over that by itself.
    database_again = Database(private_server.dsn, "followed")
    writer = Writer(database_again)
    writer.write_random(seed=2, act_count=40)

    last = writer.log()[-1].position
    for projection in BUILT_IN:
        LibraryTracking(database_again).wait(projection.name, last, timeout=30)
        assert writer.stored(projection) == writer.expected(projection)
    assert all(isinstance(problem, ServerUnavailable) for problem in problems)
    following.stop()
    running.join(30)
    assert not running.is_alive()
    database.close()
    database_again.close()


def made_writer(database: Database) -> Writer:
    schemas.create(database, partial(create_projections, database))
    return Writer(database)


def in_thread(function: Callable[[], Any]) -> Any:
    """What the function returns on a thread, so on a connection, of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def third_of_a_kind(log: list[Record]) -> Record:
    counts: dict[str, int] = {}
    for record in log:
        if isinstance(record.event, ReadyForDispatch):
            counts[record.event.kind] = counts.get(record.event.kind, 0) + 1
            if counts[record.event.kind] == Narrow.fails_at:
                return record
    raise AssertionError("too few events were made ready")
