"""One process of the fleet, as `python -m scripts.demonstration.member ORDER`."""

import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

import recovery_journal as rj
from scripts.demonstration.executions import Executions
from scripts.demonstration.job import KIND, Moment, Pass, counting, merged
from scripts.demonstration.message import Arrived, Ended, Message, Order, Ready, Role, Said, encode

# Whoever started this process ends it; this is for the case that nobody is left to do so.
LIFE_LIMIT_S: Final = 300

INPUT, OUTPUT = 0, 1


def main() -> None:
    """Play the part that the order names, until SIGTERM or the end of the run."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    signal.alarm(LIFE_LIMIT_S)
    with rj.open(
        order.dsn, limits=order.limits, reducers={KIND: merged}, must_exist=True
    ) as journal:
        match order.role:
            case Role.WORKER:
                work(journal, order)
            case Role.SWEEPER:
                say(Ready())
                rj.Sweeper(journal, on_swept=tell_swept, on_problem=complain).run()
            case Role.FOLLOWER:
                say(Ready())
                rj.Follower(journal, on_problem=complain).run()


def work(journal: rj.Journal, order: Order) -> None:
    """Run the job under guard: the one that is acquired here, or those that can be claimed."""
    function = counting(Executions(Path(order.executions)), passing(order.places))
    worker = rj.Worker(journal, order.name, {KIND: function}, on_event=tell)
    say(Ready())
    if order.run_id is None:
        worker.run()
        return
    lease = journal.acquire(
        attempt_id=order.run_id,
        run_id=order.run_id,
        worker_id=order.name,
        kind=KIND,
        input=order.given,
    )
    worker.run_lease(lease)


def passing(places: Collection[tuple[Moment, int]]) -> Pass:
    """Say where the work has come to, and wait for a byte at these places."""

    def passed(moment: Moment, ordinal: int) -> None:
        is_place = (moment, ordinal) in places
        if moment is Moment.STARTED or is_place:
            say(Arrived(moment=moment, ordinal=ordinal, process_id=os.getpid()))
        if is_place:
            os.read(INPUT, 1)

    return passed


def tell(notice: rj.Notice) -> None:
    """Pass on what went wrong for a worker, and how its turn ended."""
    if notice.kind is rj.NoticeKind.PROBLEM:
        say(Said(text=notice.text))
    elif notice.outcome is not None:
        say(Ended(outcome=notice.outcome))


def tell_swept(swept: rj.SweepResult) -> None:
    """Pass on what became of a lost lease."""
    became = swept.error or "reloaded, replayed, ready for dispatch"
    say(Said(text=f"found {swept.attempt_id}#{swept.recovery_no} lost: {became}"))


def complain(problem: Exception) -> None:
    """Pass on what is wrong."""
    say(Said(text=f"{type(problem).__name__}: {problem}"))


def say(message: Message) -> None:
    """In one write, so that lines of a worker and its child never mix."""
    os.write(OUTPUT, encode(message))


if __name__ == "__main__":
    main()
