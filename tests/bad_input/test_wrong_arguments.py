"""Arguments that once got an error of Python's or of the database's: each is refused in words."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pytest
from msgspec.structs import replace

import recovery_journal as rj
from tests.bad_input.anything import Nowhere
from tests.bad_input.scene import Scene, assert_refusal
from tests.schemas import own_schema

IDS = {"attempt_id": "another", "run_id": "another", "worker_id": "w"}
loose: Any = rj
"""The package, for calls that no type checker would let through."""

WRONG: dict[str, Callable[[Any], object]] = {
    "a priority of 5,001 digits": lambda scene: scene.journal.acquire(**IDS, priority=10**5_000),
    "kinds that are a number": lambda scene: scene.journal.claim(worker_id="w", kinds=7),
    "kinds without end": lambda scene: scene.journal.dispatch_ready(kinds=endless()),
    "a session lock of 33 bits": lambda scene: scene.journal.claim(
        worker_id="w", session_lock=2**31
    ),
    "a session lock as text": lambda scene: scene.journal.claim(worker_id="w", session_lock="1"),
    "a run with NUL": lambda scene: scene.journal.contexts(run_id="\0"),
    "a worker that is a number": lambda scene: scene.journal.contexts(worker_id=7),
    "a key with NUL": lambda scene: scene.journal.rows("workers", "\0"),
    "an option that is a list": lambda scene: scene.journal.lift_quarantine(
        "held", [], by="me", reason="to see"
    ),
    "terms that are none": lambda scene: scene.journal.adopt(7),
    "terms of no lease": lambda scene: scene.journal.adopt(replace(scene.held.terms, fence=None)),
    "a lease that is none": lambda scene: scene.journal.load(7),
    "a projection of 5,001 digits": lambda scene: scene.journal.listed(10**5_000),
    "names that are a number": lambda scene: scene.journal.check(7),
    "a progress that cannot be called": lambda scene: scene.journal.check(on_progress=7),
    "a progress that cannot be called with one": lambda scene: scene.journal.rebuild(
        on_progress=object, process_count=1
    ),
    "a restore that is perhaps one": lambda scene: scene.journal.after_restore(
        by="me", reason="to see", is_restored="perhaps"
    ),
    "a time zone that raises": lambda scene: scene.journal.contexts(
        since=datetime(2031, 1, 1, tzinfo=Nowhere())
    ),
    "a loss for no reason": lambda scene: scene.held.give_up("tired"),
    "a heartbeat with a lock as text": lambda scene: scene.held.heartbeat(session_lock="1"),
    "a sweeper of nothing": lambda _scene: loose.Sweeper(None),
    "a sweeper that cannot report": lambda scene: loose.Sweeper(scene.journal, on_swept=7),
    "a sweeper's pause of NaN": lambda scene: loose.Sweeper(
        scene.journal, longest_pause_s=float("nan")
    ),
    "a follower of nothing": lambda _scene: loose.Follower(7),
    "a follower of numbers": lambda scene: loose.Follower(scene.journal, projections=[7]),
    "batches of none": lambda scene: loose.Follower(scene.journal, batch_events=0),
    "a wait as text": lambda scene: loose.Follower(scene.journal).catch_up("soon"),
    "a worker of nothing": lambda _scene: loose.Worker(None, "w", print),
    "a worker without a function": lambda scene: loose.Worker(scene.journal, "w", 7),
    "functions that are none": lambda scene: loose.Worker(scene.journal, "w", {"report": 7}),
    "attempts as text": lambda scene: loose.Worker(scene.journal, "w", print).run(max_attempts="1"),
    "another wait of no time": lambda _scene: loose.Policy().retry_at(datetime.now(UTC), 10**5_000),
    "a schema that is a number": lambda _scene: loose.open(schema=7),
    "a DSN that is a number": lambda _scene: loose.open(7),
    "a folder as bytes": lambda _scene: loose.open(data=b"here"),
    "a folder as a number": lambda _scene: loose.open(data=7),
    "a folder without a name": lambda _scene: loose.open(data=""),
    "a folder with a NUL in its name": lambda _scene: loose.open(data="a\0b"),
    "a DSN for a folder": lambda _scene: loose.open(data="postgresql://u:p@h/db"),
    "a DSN for a schema": lambda _scene: loose.open(schema="postgresql://u:p@h/db"),
    "limits that are none": lambda _scene: loose.open(limits=7),
    "reducers that are none": lambda _scene: loose.open(reducers={"report": 7}),
    "reducers as a list": lambda _scene: loose.open(reducers=[print]),
    "projections as a number": lambda _scene: loose.open(projections=7),
    "an observer that cannot be called": lambda _scene: loose.open(observer=7),
    "a journal over nothing": lambda _scene: loose.Journal(None),
}


def endless() -> Iterator[str]:
    """Kinds, and an end to the test of a reader that does not stop by itself."""
    yield from repeat("report", 100_000)
    raise AssertionError("read without end")


@pytest.fixture(scope="module")
def scene(server_dsn: str) -> Iterator[Scene]:
    """One journal for all calls."""
    with own_schema(server_dsn) as schema, rj.open(server_dsn, schema=schema) as journal:
        yield Scene(journal, server_dsn)


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_argument_is_refused_and_nothing_changes(scene: Scene, call: str) -> None:
    scene.note()

    with pytest.raises(rj.InvalidInput) as refused:
        WRONG[call](scene)

    assert_refusal(refused.value)
    scene.assert_whole(is_changed=False)


class Misdescribed:
    """Can be called with one argument, and says nonsense about that."""

    __signature__ = 7

    def __init__(self) -> None:
        self.heard: list[object] = []

    def __call__(self, swept: object) -> None:
        self.heard.append(swept)


def test_a_callback_that_describes_itself_wrongly_is_taken_as_it_is(scene: Scene) -> None:
    progress = Misdescribed()
    scene.journal.check(on_progress=progress)
    assert progress.heard
