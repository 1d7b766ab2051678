"""A worker of a fleet, or its sweeper: `python -m tests.acceptance.fleet_program <settings>`.

`stop_at` is its name, `SWEEPER` a sweeper's. It says a problem by a
line, and works until it is ended.
"""

import time

import recovery_journal as rj
from tests.acceptance.stop import say, settings

LIMITS = rj.Limits(ttl_s=5.0, grace_s=0.5)
STEP_COUNT = 3
SWEEPER = "sweeper"


def add(claim: rj.Claim) -> int:
    """A short job with something recorded on the way."""
    total = 0
    for number in range(STEP_COUNT):
        total += number
        claim.lease.record_step(f"step {number}", total)
        time.sleep(0.05)
    return total


def main() -> None:
    given = settings()
    with rj.open(given.dsn, schema=given.schema, limits=LIMITS) as journal:
        say(given.stop_at)
        if given.stop_at == SWEEPER:
            rj.Sweeper(journal).run()
        else:
            rj.Worker(journal, given.stop_at, {"job": add}, on_event=said).run()


def said(notice: rj.Notice) -> None:
    if notice.kind is rj.NoticeKind.PROBLEM:
        say(f"{notice.worker_id}: {notice.text}")


if __name__ == "__main__":
    main()
