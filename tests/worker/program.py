"""A worker as a program of its own: `python -m tests.worker.program <settings as JSON>`."""

import sys
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

import recovery_journal as rj
from recovery_journal.limits import Limits
from recovery_journal.worker.outcome import Notice
from recovery_journal.worker.worker import SHORTEST_PAUSE_S, Worker
from tests.worker.functions import FUNCTIONS


class Settings(Struct, frozen=True, kw_only=True):
    dsn: str
    schema: str
    worker_id: str
    notices: str
    ttl_s: float
    max_attempts: int | None = None
    stalled_after_s: float | None = None
    drain_s: float = 10.0
    shortest_pause_s: float = SHORTEST_PAUSE_S
    longest_pause_s: float | None = None


def main(settings: Settings) -> None:
    def report(notice: Notice) -> None:
        with Path(settings.notices).open("ab") as file:
            file.write(msgspec.json.encode(notice) + b"\n")

    limits = Limits(grace_s=0.2)
    with rj.open(settings.dsn, schema=settings.schema, limits=limits) as journal:
        worker = Worker(
            journal,
            settings.worker_id,
            FUNCTIONS,
            ttl=timedelta(seconds=settings.ttl_s),
            stalled_after_s=settings.stalled_after_s,
            drain_s=settings.drain_s,
            shortest_pause_s=settings.shortest_pause_s,
            longest_pause_s=settings.longest_pause_s,
            on_event=report,
        )
        worker.run(max_attempts=settings.max_attempts)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Settings))
