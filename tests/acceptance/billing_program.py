"""A worker that bills, in a process of its own: `python -m tests.acceptance.billing_program
<settings>`. It resumes a lost attempt, where there is one."""

import recovery_journal as rj
from tests.acceptance.billing import begin, work_on
from tests.acceptance.job import LIMITS
from tests.acceptance.stop import Stop, say, settings

given = settings()
stop = Stop(given.stop_at)
with rj.open(given.dsn, schema=given.schema, limits=LIMITS) as journal:
    claims = journal.claim(worker_id="w-2") or [begin(journal)]
    work_on(claims[0], stop.reach)
    say("completed")
