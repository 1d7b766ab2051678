"""`async def` functions are awaited in the child; what nothing would run is refused at the door."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import lru_cache, partial, partialmethod, singledispatch, wraps
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.claiming.loading import Claim
from recovery_journal.domain.errors import InvalidInput, ServerUnavailable
from recovery_journal.domain.events import Ending, LeaseEnded
from recovery_journal.domain.recovery import Stage
from recovery_journal.worker.outcome import Outcome
from tests.rules.scenes import said_last
from tests.worker.desk import Desk, worker_of


async def count(claim: Claim) -> int:
    """Three run steps, each at another turn of the loop."""
    for number in range(3):
        await asyncio.sleep(0)
        claim.lease.record_step(f"count {number}", number)
    return claim.lease.progress.ordinal


class Counting:
    """A function as an object, and as a method of one."""

    async def __call__(self, claim: Claim) -> int:
        return await count(claim)

    async def method(self, claim: Claim) -> int:
        return await count(claim)

    @staticmethod
    def in_a_lambda(claim: Claim) -> Awaitable[int]:
        return count(claim)


async def count_with(_scale: int, claim: Claim) -> int:
    return await count(claim)


def yield_steps(claim: Claim) -> Iterator[int]:
    claim.lease.record_step("never")
    yield 1


async def yield_steps_later(claim: Claim) -> AsyncIterator[int]:
    claim.lease.record_step("never")
    yield 1


class Yielding:
    """A generator function as an object."""

    def __call__(self, claim: Claim) -> Iterator[int]:
        yield from yield_steps(claim)

    @staticmethod
    def static(claim: Claim) -> Iterator[int]:
        yield from yield_steps(claim)

    @classmethod
    def of_class(cls, claim: Claim) -> Iterator[int]:
        yield from yield_steps(claim)

    def with_scale(self, _scale: int, claim: Claim) -> Iterator[int]:
        yield from yield_steps(claim)

    scaled = partialmethod(with_scale, 2)


class Inheriting(Yielding):
    """One whose class says nothing of its call."""


class Partial:
    """An object whose call is a partial method."""

    __call__ = partialmethod(Yielding.with_scale, 2)


@lru_cache
def yield_cached(claim: Claim) -> Iterator[int]:
    yield from yield_steps(claim)


@singledispatch
def dispatched(_claim: object) -> Any:
    return 1


dispatched.register(Claim, yield_steps)


@wraps(yield_steps)
def collect_steps(claim: Claim) -> int:
    """A plain function that names a generator function as what it wraps."""
    claim.lease.record_step("collected")
    return 1


@wraps(count)
def run_count(claim: Claim) -> int:
    """A plain function that names an async one as what it wraps, and runs it."""
    return asyncio.run(count(claim))


def result_of(desk: Desk, attempt_id: str = "a-1") -> Any:
    ended = desk.journal.recovery(attempt_id).ended
    assert isinstance(ended, LeaseEnded)
    return ended.ending


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(count, id="a function"),
        pytest.param(Counting(), id="an object"),
        pytest.param(Counting().method, id="a method"),
        pytest.param(Counting.in_a_lambda, id="a plain function that returns a coroutine"),
        pytest.param(partial(count_with, 2), id="a partial"),
    ],
)
def test_an_async_function_is_awaited(
    desk: Desk, function: Callable[[Claim], Awaitable[int]]
) -> None:
    desk.make_ready("a-1", "count")

    ended = worker_of(desk, {"count": function}).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})
    assert desk.journal.recovery("a-1").recovery_no == 1
    with desk.journal.database.cursor() as cursor:
        names = cursor.execute("SELECT name FROM run_steps ORDER BY ordinal").fetchall()
    assert [row["name"] for row in names] == ["count 0", "count 1", "count 2"]


def test_every_attempt_has_an_event_loop_of_its_own(desk: Desk) -> None:
    desk.make_ready("a-1", "count")
    desk.make_ready("a-2", "count")

    async def leave_a_task(claim: Claim) -> int:
        assert len(asyncio.all_tasks()) == 1, "nothing of the attempt before is left"
        asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        claim.lease.record_step("left a task")
        return 1

    ended = worker_of(desk, leave_a_task).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 2})


def test_a_worker_in_a_program_that_has_an_event_loop_awaits_in_the_child(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    async def program() -> Counter[Outcome]:
        return worker_of(desk, count).run(until_idle=True)

    assert asyncio.run(program()) == Counter({Outcome.COMPLETED: 1})


def test_a_plain_function_may_run_a_loop_of_its_own(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    def run_loop(claim: Claim) -> int:
        return asyncio.run(count(claim))

    assert worker_of(desk, run_loop).run(until_idle=True) == Counter({Outcome.COMPLETED: 1})


def test_an_async_function_that_raises_fails_its_attempt(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    async def fail(_claim: Claim) -> None:
        await asyncio.sleep(0)
        raise ValueError("cannot count")

    ended = worker_of(desk, fail).run(until_idle=True)

    assert ended == Counter({Outcome.FAILED: 1})
    assert result_of(desk) is Ending.FAILED


def grouped(*tasks: Callable[[Claim], Coroutine[Any, Any, None]]) -> Any:
    """A function that does all of these in a task group."""

    async def function(claim: Claim) -> None:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task(claim))

    return function


async def be_cut_off(_claim: Claim) -> None:
    raise ServerUnavailable(server="here", reason="a cut")


async def be_wrong(_claim: Claim) -> None:
    raise ValueError("wrong")


def test_a_server_that_is_away_from_a_task_of_the_function_is_no_failure(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    ended = worker_of(desk, grouped(be_cut_off, be_cut_off)).run(max_attempts=1)

    assert ended == Counter({Outcome.INTERRUPTED: 1})
    assert desk.journal.recovery("a-1").stage is Stage.READY


def test_a_task_that_is_wrong_fails_the_attempt_whatever_others_meet(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    ended = worker_of(desk, grouped(be_cut_off, be_wrong)).run(max_attempts=1)

    assert ended == Counter({Outcome.FAILED: 1})


def test_a_void_lease_that_a_task_of_the_function_meets_is_no_failure(desk: Desk) -> None:
    desk.make_ready("a-1", "count")

    async def lose(claim: Claim) -> None:
        desk.journal.cancel(claim.lease.attempt_id, by="a tester", reason="not needed")
        claim.lease.record_step("too late")

    ended = worker_of(desk, grouped(lose, be_wrong)).run(until_idle=True)

    assert ended == Counter({Outcome.LOST: 1})


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(yield_steps, id="a generator function"),
        pytest.param(yield_steps_later, id="an async generator function"),
        pytest.param(partial(yield_steps), id="a partial of one"),
        pytest.param(Yielding(), id="an object"),
        pytest.param(Yielding().__call__, id="a method"),
        pytest.param(Inheriting(), id="an object of a subclass"),
        pytest.param(partial(Yielding()), id="a partial of an object"),
        pytest.param(partial(partial(Yielding().with_scale), 1), id="a partial of a partial"),
        pytest.param(Yielding.static, id="a static method"),
        pytest.param(Yielding.of_class, id="a class method"),
        pytest.param(Yielding().scaled, id="a partial method"),
        pytest.param(Partial(), id="an object called by a partial method"),
        pytest.param(yield_cached, id="a cache"),
        pytest.param(partial(yield_cached), id="a partial of a cache"),
        pytest.param(dispatched, id="one of a single dispatch"),
    ],
)
def test_a_generator_function_is_refused_when_it_is_handed_in(
    desk: Desk, function: Callable[..., Any]
) -> None:
    desk.make_ready("a-1", "count")

    for functions in (function, {"count": function}):
        with pytest.raises(InvalidInput, match="generator function"):
            worker_of(desk, functions)
    with pytest.raises(InvalidInput, match="generator function"):
        rj.open(desk.dsn, schema=desk.journal.database.schema, reducers={"count": function})
    with pytest.raises(InvalidInput, match="generator function"):
        rj.Worker(desk.journal, "w-1", count, on_event=function)
    assert desk.journal.recovery("a-1").stage is Stage.READY


@pytest.mark.parametrize("function", [collect_steps, partial(collect_steps), run_count])
def test_a_plain_function_that_runs_the_one_which_it_wraps_is_accepted(
    desk: Desk, function: Callable[[Claim], int]
) -> None:
    desk.make_ready("a-1", "count")

    ended = worker_of(desk, {"count": function}).run(until_idle=True)

    assert ended == Counter({Outcome.COMPLETED: 1})


@pytest.mark.parametrize("returned", [yield_steps, yield_steps_later, Yielding()])
def test_a_function_that_returns_code_which_has_not_run_fails_its_attempt(
    desk: Desk, returned: Callable[[Claim], Any]
) -> None:
    async def later(claim: Claim) -> Any:
        return returned(claim)

    desk.make_ready("a-1", "count")
    desk.make_ready("a-2", "later")
    functions = {"count": lambda claim: returned(claim), "later": later}  # noqa: PLW0108 - a lambda, so that the door cannot see it

    ended = worker_of(desk, functions).run(until_idle=True)

    assert ended == Counter({Outcome.FAILED: 2})
    assert "whose code has not run" in said_last(desk.journal)


@pytest.mark.parametrize(
    "function",
    [
        count,
        Counting(),
        Counting().method,
        partial(count),
        partial(Counting()),
        partial(partial(Counting().method)),
        lru_cache(count),
    ],
)
def test_an_async_function_is_refused_where_nothing_awaits_it(
    desk: Desk, function: Callable[..., Any]
) -> None:
    with pytest.raises(InvalidInput, match="async function"):
        rj.open(desk.dsn, schema=desk.journal.database.schema, reducers={"count": function})
    with pytest.raises(InvalidInput, match="async function"):
        rj.Worker(desk.journal, "w-1", count, on_event=function)
    with pytest.raises(InvalidInput, match="async function"):
        rj.Sweeper(desk.journal, on_quarantine=function)
    with pytest.raises(InvalidInput, match="async function"):
        desk.journal.notify_quarantines(function)
    for codec in (
        rj.Codec(name="desk", type=Desk, encode=function, decode=id),
        rj.Codec(name="desk", type=Desk, encode=id, decode=function),
    ):
        with pytest.raises(InvalidInput, match="async function"):
            rj.open(desk.dsn, schema=desk.journal.database.schema, codecs=[codec])
