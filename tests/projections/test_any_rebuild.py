"""Any history, any interleaving of writers, followers, rebuilds and deaths: in the end the rows are
those of a fold from scratch."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery_journal.domain.errors import FoldFailed
from recovery_journal.domain.events import AnyEvent
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.projection import Projection, Record
from recovery_journal.projections.recovery_contexts import RecoveryContexts
from recovery_journal.projections.workers import Workers
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.progress import RebuildProgress
from recovery_journal.read_models.schema import create_projections
from tests.projections.folds import Bare, Narrower, Shouting, Wider
from tests.projections.logs import logs
from tests.projections.rebuilding import follow, is_right, rebuild, small_ranges
from tests.projections.writing import Writer


class NextContexts(RecoveryContexts):
    """Means something else, it says."""

    version = 2


class NextWorkers(Workers):
    """Likewise, where rows mix streams."""

    version = 2


class Died(Exception):
    pass


class Tripping:
    """A fold that fails after some events; its hash knows nothing of that."""

    left: int | None = None

    def fold(self, row: Any, record: Record) -> Any:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died
        return super().fold(row, record)  # type: ignore[misc]  # that of the class beside it


class TrippingContexts(Tripping, RecoveryContexts):
    """Stream-keyed."""


class TrippingWorkers(Tripping, Workers):
    """Its rows mix streams."""


TRIPPING = (TrippingContexts(), TrippingWorkers())
TOGETHER: tuple[tuple[Projection[Any], ...], ...] = (
    BUILT_IN,
    (DISPATCH_READY, *TRIPPING),
    (DISPATCH_READY,),
    (TRIPPING[0],),
    (TRIPPING[1],),
    (Shouting(), NextWorkers()),
    (Wider(), NextContexts()),
    (Bare(),),
    (Narrower(),),
)
"""The projections of one rebuild: our folds, and those of other versions of the program."""

LISTED = (None, DISPATCH_READY, Shouting(), Wider())
"""A program may know of the dispatch-ready list: nothing, or one of its folds."""


class Written(NamedTuple):
    """The next events are appended by a program that has this fold for the list."""

    event_count: int
    listed_no: int


class Followed(NamedTuple):
    """A follower of these folds takes a step."""

    together_no: int


class Rebuilt(NamedTuple):
    """A rebuild begins or resumes. At its progress messages the others act, one after the other;
    it dies at one of them, or in a fold, or not at all."""

    together_no: int
    meanwhile: list[Written | Followed]
    dies_at: int | None
    trips_after: int | None


written = st.builds(Written, st.integers(1, 20), st.integers(0, len(LISTED) - 1))
followed = st.builds(Followed, st.integers(0, len(TOGETHER) - 1) | st.just(0))
rebuilt = st.builds(
    Rebuilt,
    st.integers(0, len(TOGETHER) - 1) | st.just(0),
    st.lists(written | followed, max_size=8),
    st.none() | st.integers(0, 25),
    st.none() | st.integers(0, 40),
)
acts = st.lists(written | followed | rebuilt, min_size=1, max_size=10)


class World:
    """One journal: its programs, and those that rebuild, each with connections of its own."""

    def __init__(self, dsn: str, schema: str, log: list[Record], process_count: int) -> None:
        self.databases = [Database(dsn, schema) for _ in range(2)]
        with self.databases[0].cursor() as cursor:
            cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
        schemas.create(self.databases[0], partial(create_projections, self.databases[0]))
        self.rebuilding, self.others = map(Writer, self.databases)
        self.programs = [Writer(self.databases[1], it or DISPATCH_READY) for it in LISTED]
        self.events: Iterator[AnyEvent] = (record.event for record in log)
        self.process_count = process_count

    def do(self, act: Written | Followed | Rebuilt) -> None:
        """One act of the example."""
        match act:
            case Written(event_count, listed_no):
                events = list(islice(self.events, event_count))
                is_inline = LISTED[listed_no] is not None
                self.programs[listed_no].write(events, is_inline=is_inline)
            case Followed(together_no):
                Follower(self.others, projections=TOGETHER[together_no], batch_events=7).step()
            case Rebuilt():
                self._rebuild(act)

    def _rebuild(self, act: Rebuilt) -> None:
        meanwhile = iter(act.meanwhile)
        messages = iter(range(1_000_000))

        def on_progress(_progress: RebuildProgress) -> None:
            for one in islice(meanwhile, 1):
                self.do(one)
            if next(messages) == act.dies_at:
                raise Died

        for fold in TRIPPING:
            fold.left = act.trips_after
        with suppress(Died, FoldFailed):
            self._run(TOGETHER[act.together_no], on_progress)
        for fold in TRIPPING:
            fold.left = None

    def _run(
        self,
        projections: tuple[Projection[Any], ...],
        on_progress: Callable[[RebuildProgress], None] = lambda _progress: None,
    ) -> None:
        rebuild(
            self.rebuilding,
            projections=projections,
            process_count=self.process_count,
            block_events=11,
            on_progress=on_progress,
        ).run()

    def finish(self) -> None:
        """No process dies any more."""
        self.programs[1].write(list(self.events))
        self.assert_right(self.ours())
        self._run(BUILT_IN)
        assert self.ours() == list(BUILT_IN)
        self.assert_right(BUILT_IN)
        assert is_right(self.others)

    def ours(self) -> list[Projection[Any]]:
        """Those whose rows belong to our fold."""
        places = {it.projection: it for it in ProjectionTracking(self.databases[1]).all()}
        return [it for it in BUILT_IN if places[it.name].is_of(it)]

    def assert_right(self, projections: Any) -> None:
        """Once the follower has caught up."""
        follow(self.others)
        for projection in projections:
            assert self.others.stored(projection) == self.others.expected(projection)

    def close(self) -> None:
        for database in self.databases:
            database.close()


def happen(dsn: str, schema: str, log: list[Record], acts: list[Any], process_count: int) -> None:
    world = World(dsn, schema, log, process_count)
    try:
        for act in acts:
            world.do(act)
        world.finish()
    finally:
        world.close()


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)


on_a_server = partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@on_a_server(max_examples=25)
@given(log=logs, acts=acts)
def test_any_interleaving_ends_in_the_rows_of_a_fold_from_scratch(
    server_dsn: str, schema: str, log: list[Record], acts: list[Any]
) -> None:
    happen(server_dsn, schema, log, acts, process_count=1)


@on_a_server(max_examples=5)
@given(log=logs, acts=acts)
def test_so_does_any_interleaving_with_two_processes(
    server_dsn: str, schema: str, log: list[Record], acts: list[Any]
) -> None:
    happen(server_dsn, schema, log, acts, process_count=2)
