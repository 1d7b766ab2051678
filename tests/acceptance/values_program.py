"""A worker in a process of its own that is given a file of values, and records each of them:
`python -m tests.acceptance.values_program <settings>`."""

import os
import pickle
from pathlib import Path

import recovery_journal as rj
from tests.acceptance.job import LIMITS, TTL
from tests.acceptance.stop import Stop, settings
from tests.values.money import CODECS

VALUES_VARIABLE = "VALUES_OF_THE_TEST"

if __name__ == "__main__":
    given = settings()
    stop = Stop(given.stop_at)
    values = pickle.loads(Path(os.environ[VALUES_VARIABLE]).read_bytes())  # noqa: S301 - the test's
    with rj.open(given.dsn, schema=given.schema, limits=LIMITS, codecs=CODECS) as journal:
        lease = journal.acquire(
            attempt_id="a-1", run_id="r-1", kind="keep", worker_id="w-1", ttl=TTL, input=values
        )
        for value in values:
            lease.record_step("before", value)
        lease.checkpoint({"values": values})
        for value in values:
            lease.record_step("after", value)
        stop.reach("recorded")
