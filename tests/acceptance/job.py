"""The run that is disturbed: it adds up 1 to 4, with a checkpoint after 2."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import recovery_journal as rj
from recovery_journal.store.runs import TailStep

STEP_COUNT = 4
CHECKPOINT_AT = 2
TTL = timedelta(seconds=0.4)
LIMITS = rj.Limits(ttl_s=0.4, grace_s=0.1, sweeper_ttl_s=0.4)
RESULT = {"sum": 10}


def begin(journal: rj.Journal) -> rj.Lease:
    """The first worker's lease, which is soon lost."""
    return journal.acquire(attempt_id="a-1", run_id="r-1", kind="sum", worker_id="w-1", ttl=TTL)


def work_on(
    lease: rj.Lease,
    state: Any = None,
    tail: Sequence[TailStep] = (),
    reach: Callable[[str], object] = lambda _boundary: None,
) -> str:
    """Do what is left to do; the digest of the result."""
    total = (state or {"sum": 0})["sum"] + sum(step.output["n"] for step in tail)
    for ordinal in range(lease.progress.ordinal + 1, STEP_COUNT + 1):
        lease.begin_step(f"add-{ordinal}")
        reach(f"announced-{ordinal}")
        lease.record_step(f"add-{ordinal}", {"n": ordinal})
        total += ordinal
        reach(f"recorded-{ordinal}")
        if ordinal == CHECKPOINT_AT:
            lease.checkpoint({"sum": total})
            reach("checkpointed")
    reach("before-complete")
    digest = lease.complete({"sum": total})
    reach("completed")
    return digest
