"""The part that a process of the demonstration plays."""

import os
import signal
from collections.abc import Collection
from pathlib import Path

import recovery_journal as rj
from scripts.demonstration.channel import Arrived, Channel, Ended, Order, Ready, Said
from scripts.demonstration.job import KIND, Executions, Moment, Pass, counting, merged
from scripts.harness.life import Role, Setting


def play(order: Order, channel: Channel, name: str, setting: Setting) -> None:
    """Do what the order says, until SIGTERM."""

    def complain(problem: Exception) -> None:
        channel.send(Said(text=f"{type(problem).__name__}: {problem}"))

    def report_swept(swept: rj.SweepResult) -> None:
        became = swept.error or "reloaded, replayed, ready for dispatch"
        channel.send(Said(text=f"found {swept.attempt_id}#{swept.recovery_no} lost: {became}"))

    with rj.open(
        setting.dsn_of(name), limits=order.limits, reducers={KIND: merged}, must_exist=True
    ) as journal:
        match order.role:
            case Role.SWEEPER:
                channel.send(Ready())
                rj.Sweeper(journal, on_swept=report_swept, on_problem=complain).run()
            case Role.FOLLOWER:
                channel.send(Ready())
                rj.Follower(journal, on_problem=complain).run()
            case _:
                work(journal, order, channel)


def work(journal: rj.Journal, order: Order, channel: Channel) -> None:
    """Run the job under guard: the one that is acquired here, or those that can be claimed."""

    def report(notice: rj.Notice) -> None:
        if notice.kind is rj.NoticeKind.PROBLEM:
            channel.send(Said(text=notice.text))
        elif notice.outcome is not None:
            channel.send(Ended(outcome=notice.outcome))

    function = counting(Executions(Path(order.executions)), passing(order.places, channel))
    worker = rj.Worker(journal, order.name, {KIND: function}, on_event=report)
    channel.send(Ready())
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
    signal.pause()  # it has done its work, and ends when it is asked to


def passing(places: Collection[tuple[Moment, int]], channel: Channel) -> Pass:
    """A hook of the job that reports its progress, and waits for permission at these places."""

    def passed(moment: Moment, ordinal: int) -> None:
        is_place = (moment, ordinal) in places
        if moment is Moment.STARTED or is_place:
            channel.send(Arrived(moment=moment, ordinal=ordinal, process_id=os.getpid()))
        if is_place:
            channel.wait()

    return passed
