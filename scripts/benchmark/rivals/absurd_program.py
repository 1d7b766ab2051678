"""The part of absurd-sdk in a mass crash; a program for the rivals' own environment.

`hold`: a worker claims every task, checkpoints a state and five steps of each, says so and waits
to be killed. `recover`: a new worker, started in the documented way, until the function of every
task stands behind its checkpointed steps, with their results. `claim`: no worker, only the
call with which one begins; it takes what is lost and loads no checkpoint.
"""

import asyncio
import sys
import time
from typing import Any

QUEUE = "crash"
TASK = "mass-crash"
STATE = {"text": "x" * 976, "sum": 1}
TAIL_STEPS = 5
CLAIM_LIMIT = 500
PATIENCE_S = 5.0
PAUSE_S = 0.005


def hold(dsn: str, count: int, claim_timeout_s: int) -> None:
    """Spawn the tasks, and hold them all."""
    from absurd_sdk import Absurd

    app = Absurd(dsn, queue_name=QUEUE)
    app.create_queue(QUEUE)

    app.register_task(name=TASK)(_never)
    for number in range(count):
        app.spawn(TASK, {"number": number})
    app.close()
    asyncio.run(_hold(dsn, count, claim_timeout_s))


def _never(_params: Any, _context: Any) -> None:  # noqa: ANN401 - as they are given
    """The process that spawns a task names it; another process works on it."""


async def _hold(dsn: str, count: int, claim_timeout_s: int) -> None:
    from absurd_sdk import AsyncAbsurd

    app = AsyncAbsurd(dsn, queue_name=QUEUE)
    held = 0

    async def work(_params: Any, context: Any) -> None:  # noqa: ANN401 - as they are given
        nonlocal held

        async def state() -> dict[str, Any]:
            return STATE

        await context.step("state", state)
        for ordinal in range(1, TAIL_STEPS + 1):

            async def output(ordinal: int = ordinal) -> dict[str, int]:
                return {"n": ordinal}

            await context.step(f"step-{ordinal}", output)
        held += 1
        if held == count:
            print("held", flush=True)
        await asyncio.Event().wait()

    app.register_task(name=TASK)(work)
    await app.start_worker(
        worker_id="dead", claim_timeout=claim_timeout_s, concurrency=count + 1, batch_size=count
    )


async def recover(dsn: str, number: int) -> None:
    """Work on what is lost, up to the end of its checkpointed steps; print how many got there, and
    when the last one did."""
    from absurd_sdk import AsyncAbsurd, SuspendTask

    app = AsyncAbsurd(dsn, queue_name=QUEUE)
    count, last_at = 0, time.monotonic()

    async def not_again() -> Any:  # noqa: ANN401 - never returns
        raise AssertionError("a checkpointed step is run again")

    async def work(_params: Any, context: Any) -> None:  # noqa: ANN401 - as they are given
        nonlocal count, last_at
        assert await context.step("state", not_again) == STATE
        for ordinal in range(1, TAIL_STEPS + 1):
            assert await context.step(f"step-{ordinal}", not_again) == {"n": ordinal}
        count, last_at = count + 1, time.monotonic()
        # It would continue here. So it makes room for the next one, and nothing is written for it.
        raise SuspendTask

    async def stop_when_idle() -> None:
        while time.monotonic() < last_at + PATIENCE_S:
            await asyncio.sleep(PAUSE_S)
        app.stop_worker()

    app.register_task(name=TASK)(work)
    await app.list_queues()  # connected
    print("ready", flush=True)
    sys.stdin.readline()
    last_at = time.monotonic()
    # All of a claim at once, as coroutines: in a trial its synchronous worker was a third slower,
    # and with threads more.
    await asyncio.gather(
        stop_when_idle(),
        app.start_worker(
            worker_id=f"new-{number}",
            claim_timeout=600,
            concurrency=CLAIM_LIMIT + 1,
            batch_size=CLAIM_LIMIT,
            poll_interval=PAUSE_S,
        ),
    )
    print(count, last_at, flush=True)


def claim(dsn: str, number: int) -> None:
    """Claim what is lost; print how many, and when the last one was claimed."""
    from absurd_sdk import Absurd

    app = Absurd(dsn, queue_name=QUEUE)
    app.list_queues()  # connected
    print("ready", flush=True)
    sys.stdin.readline()
    count, last_at = 0, time.monotonic()
    while time.monotonic() < last_at + PATIENCE_S:
        tasks = app.claim_tasks(CLAIM_LIMIT, claim_timeout=600, worker_id=f"new-{number}")
        if tasks:
            count, last_at = count + len(tasks), time.monotonic()
        else:
            time.sleep(PAUSE_S)
    print(count, last_at, flush=True)


if __name__ == "__main__":
    verb, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if verb == "hold":
        hold(where, number, int(sys.argv[4]))
    elif verb == "recover":
        asyncio.run(recover(where, number))
    else:
        claim(where, number)
