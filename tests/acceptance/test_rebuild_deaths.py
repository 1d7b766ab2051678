"""A real rebuild killed again and again, in every phase, while all other work continues."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any

import psutil
import pytest

import recovery_journal as rj
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.rebuild.check import Check
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from scripts.histories.log import fill
from tests.acceptance.programs import Program, is_alive, launched
from tests.acceptance.stop import Settings
from tests.projections.writing import Writer
from tests.rules.scenes import LIMIT_S, held, report, rows, until

REBUILD = "tests.acceptance.rebuild_program"
EVENT_COUNT = 40_000

BOUNDARIES = [
    *("folding", "folding 5", "folding 20", "folding 40", "folding 60", "folding 80"),
    *("indexing", "catching up", "switching dispatch_ready", "switching recovery_contexts"),
    *("catching up workers", "switching moments", "indexing for as-of"),
]

RANGES_DONE = """
SELECT rebuild_no, range_no, event_count, done_at
FROM rebuild_ranges
WHERE done_at IS NOT NULL
"""


class Start:
    """One start of the rebuild, which stands still at a boundary. Its processes do not."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.done_before = int(program.said().removesuffix(" done before"))

    def children(self) -> list[psutil.Process]:
        """Its processes that are alive."""
        children = psutil.Process(self.program.process.pid).children()
        return [child for child in children if is_alive(child)]

    def kill(self) -> int:
        """SIGKILL; return, once no process of it is left, how many it had."""
        children = self.children()
        self.program.kill()
        until(lambda: not any(map(is_alive, children)), "its processes to end by themselves")
        return len(children)


@contextmanager
def started(journal: rj.Journal, dsn: str, boundary: str) -> Iterator[Start]:
    """A rebuild that has reached its boundary."""
    settings = Settings(dsn=dsn, schema=journal.database.schema, stop_at=boundary)
    with launched(REBUILD, settings) as program:
        start = Start(program)
        program.until_said(boundary)
        yield start


@contextmanager
def load(journal: rj.Journal, dsn: str) -> Iterator[list[str]]:
    """Workers that begin, are lost, claim and complete, a program that leaves its rows to the
    follower, and that follower; yields the attempts that were served."""
    schema = journal.database.schema
    stop = threading.Event()
    served: list[str] = []
    errors: list[BaseException] = []

    def work(mine: rj.Journal) -> None:
        for no in count():
            report(mine, held(mine, f"live-{no}", kind="live"))
            (claim,) = mine.claim(worker_id="w-2", kinds=["live"])
            claim.lease.complete({"no": no})
            served.append(claim.lease.attempt_id)
            if stop.wait(0.01):
                return

    def append(mine: rj.Journal) -> None:
        writer = Writer(mine.database)
        for seed in count():
            writer.write_random(seed, is_inline=False, act_count=20)
            if stop.wait(0.01):
                return

    def follow(mine: rj.Journal) -> None:
        follower = Follower(mine)
        while not stop.wait(0.01):
            follower.step()

    def guarded(act: Callable[[rj.Journal], None]) -> None:
        try:
            with rj.open(dsn, schema=schema) as mine:
                act(mine)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in (work, append, follow)]
    for thread in threads:
        thread.start()
    try:
        yield served
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert errors == []


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """Its log is one that others have written."""
    with rj.open(server_dsn, schema=schema) as journal:
        fill(server_dsn, schema, event_count=EVENT_COUNT)
        yield journal


def test_a_rebuild_killed_in_every_phase_under_load_ends_in_the_rows_of_an_undisturbed_one(
    journal: rj.Journal, server_dsn: str
) -> None:
    done_before: list[int] = []
    child_count = 0
    done: list[set[tuple[object, ...]]] = []
    with load(journal, server_dsn) as served:
        lose_a_child(journal, server_dsn)
        for boundary in BOUNDARIES:
            with started(journal, server_dsn, boundary) as start:
                done_before.append(start.done_before)
                child_count += start.kill()
            done.append(ranges_done(journal))
        with started(journal, server_dsn, "done") as start:
            done_before.append(start.done_before)
            start.program.wake()
            assert start.program.until_ended() == 0

    assert len(served) > len(BOUNDARIES)
    assert child_count > 0
    assert done_before == sorted(done_before)
    assert done_before[BOUNDARIES.index("indexing")] > 0
    assert all(earlier <= later for earlier, later in pairwise(done))
    assert_right(journal)


def lose_a_child(journal: rj.Journal, dsn: str) -> None:
    """The rebuild says so and ends, and so does its other process."""
    with started(journal, dsn, "folding 2") as start:
        lost, *others = start.children()
        lost.kill()
        start.program.wake()
        start.program.until_said("ProcessLost")
        assert start.program.until_ended() == 0
        until(lambda: not any(map(is_alive, others)), "the other process to end")


def ranges_done(journal: rj.Journal) -> set[tuple[object, ...]]:
    """Each with when it was done, so that one that is done again is another."""
    return {tuple(row.values()) for row in rows(journal, RANGES_DONE)}


def assert_right(journal: rj.Journal) -> None:
    Follower(journal).catch_up(LIMIT_S)
    assert all(it.is_right and not it.pending_count for it in Check(journal.database).run())
    disturbed = all_rows(journal)
    Rebuild(journal.database, journal.reader).run()
    assert all_rows(journal) == disturbed


def all_rows(journal: rj.Journal) -> dict[str, list[Any]]:
    return {it.name: list(journal.rows(it)) for it in BUILT_IN}
