"""One member of a fleet beside a forger: `python -m tests.acceptance.hostile_program <settings>`.

`stop_at` is its role: a sweeper, a follower, or a worker that completes what it claims.
"""

import os
from typing import Final

import recovery_journal as rj
from tests.acceptance.stop import say, settings

LIMITS: Final = rj.Limits(
    ttl_s=2.0,
    grace_s=0.2,
    sweeper_ttl_s=5.0,
    policy=rj.Policy(backoff_s=0.5, backoff_limit_s=2.0),
)


def add_up(claim: rj.Claim) -> int:
    """Three more steps."""
    for number in range(3):
        claim.lease.record_step(f"step {number}", number)
    return claim.lease.progress.ordinal


def serve() -> None:
    """In the role that the settings name, until SIGTERM."""
    given = settings()
    with rj.open(given.dsn, schema=given.schema, limits=LIMITS) as journal:
        say(given.stop_at)
        if given.stop_at == "sweeper":
            rj.Sweeper(journal, longest_pause_s=0.1).run()
        elif given.stop_at == "follower":
            rj.Follower(journal).run()
        else:
            worker_id = f"{given.stop_at} {os.getpid()}"
            rj.Worker(
                journal, worker_id, add_up, longest_pause_s=0.2, on_event=lambda _notice: None
            ).run()


if __name__ == "__main__":
    serve()
