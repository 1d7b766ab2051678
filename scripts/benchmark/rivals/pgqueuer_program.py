"""The part of pgqueuer in a mass crash; a program for the rivals' own environment.

`hold`: a worker takes every job, each with a state of 1 kB as its payload, says so and waits to be
killed. `recover`: a new worker takes what has no heartbeat any more, until nothing more is. It
keeps no steps and no history.
"""

import asyncio
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

ENTRYPOINT = "mass-crash"
STATE = b"x" * 1000
CLAIM_LIMIT = 500
PATIENCE_S = 1.0
PAUSE_S = 0.005
CHUNK = 1_000


async def hold(dsn: str, count: int) -> None:
    """Enqueue the jobs, and hold them all."""
    queries = await _queries(dsn)
    await queries.install()
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        await queries.enqueue([ENTRYPOINT] * size, [STATE] * size, [0] * size)
    held = 0
    while held < count:
        held += len(await _dequeue(queries, uuid.uuid4(), heartbeat_timeout_s=600))
    print("held", flush=True)
    await asyncio.Event().wait()


async def recover(dsn: str) -> None:
    """Take what is lost; print how many, and when the last one was taken."""
    queries, worker = await _queries(dsn), uuid.uuid4()
    print("ready", flush=True)
    sys.stdin.readline()
    count, last_at = 0, time.monotonic()
    # A job that this worker takes has a new heartbeat, so it is not taken twice in so short a time.
    timeout_s = float(sys.argv[4])
    while time.monotonic() < last_at + PATIENCE_S:
        jobs = await _dequeue(queries, worker, heartbeat_timeout_s=timeout_s)
        if jobs:
            count, last_at = count + len(jobs), time.monotonic()
        else:
            await asyncio.sleep(PAUSE_S)
    print(count, last_at, flush=True)


async def _queries(dsn: str) -> Any:  # noqa: ANN401 - typed in the rivals' environment alone
    import asyncpg
    from pgqueuer.queries import Queries

    return Queries.from_asyncpg_connection(await asyncpg.connect(dsn))


async def _dequeue(queries: Any, worker: uuid.UUID, heartbeat_timeout_s: float) -> list[Any]:  # noqa: ANN401 - as above
    from pgqueuer.queries import EntrypointExecutionParameter

    found: list[Any] = await queries.dequeue(
        batch_size=CLAIM_LIMIT,
        entrypoints={ENTRYPOINT: EntrypointExecutionParameter(concurrency_limit=0)},
        queue_manager_id=worker,
        global_concurrency_limit=None,
        heartbeat_timeout=timedelta(seconds=heartbeat_timeout_s),
    )
    return found


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        asyncio.run(hold(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(recover(sys.argv[2]))
