"""A worker in a process of its own: `python -m tests.acceptance.worker_program <settings>`."""

import recovery_journal as rj
from tests.acceptance.job import LIMITS, begin, work_on
from tests.acceptance.stop import Stop, say, settings

given = settings()
stop = Stop(given.stop_at)
with rj.open(given.dsn, schema=given.schema, limits=LIMITS) as journal:
    lease = begin(journal)
    stop.reach("acquired")
    try:
        work_on(lease, reach=stop.reach)
    except rj.LeaseLost:
        say("lease lost")
    else:
        say("completed by itself")
