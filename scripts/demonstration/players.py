"""The processes of the demonstration: their orders, their parts, and what they report."""

import os
import signal
import time
from collections.abc import Collection, Iterator
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

import recovery_journal as rj
from scripts.demonstration.job import KIND, Executions, Moment, Pass, Statistics, counting, merged
from scripts.harness.fleet import Fleet, Member
from scripts.harness.life import Role, Setting

READY_LIMIT_S: Final = 60
TICK_S: Final = 0.1


class Trouble(Exception):
    """Something did not happen that the demonstration waits for, or happened by itself."""


class Order(Struct, frozen=True, kw_only=True):
    """The order of a process. A worker with a `run_id` acquires that run and ends with it; one
    without claims recovered attempts. At `places` it waits for permission to continue."""

    role: Role
    name: str
    executions: str
    limits: rj.Limits = rj.Limits()
    run_id: str | None = None
    given: Statistics = {}
    places: tuple[tuple[Moment, int], ...] = ()


class Ready(Struct, frozen=True):
    """The process has started."""


class Arrived(Struct, frozen=True, kw_only=True):
    """A worker's child is at a moment of its work; it waits there, unless it has just started."""

    moment: Moment
    ordinal: int
    process_id: int


class Said(Struct, frozen=True, kw_only=True):
    """A sentence for people."""

    text: str


class Ended(Struct, frozen=True, kw_only=True):
    """How a worker's turn at the job ended."""

    outcome: str


Message = Ready | Arrived | Said | Ended


class Channel:
    """Messages from one process and its children; permission for it to continue."""

    def __init__(self) -> None:
        self.messages, self._sender = Pipe(duplex=False)
        self._permission, self._permitter = Pipe(duplex=False)

    def send(self, message: Message) -> None:
        """Send in one write, so that messages of a worker and its child never mix."""
        self._sender.send(message)

    def wait(self) -> None:
        """Wait for permission to continue."""
        self._permission.recv()

    def release(self) -> None:
        """Let the process continue from the place where it waits."""
        self._permitter.send(None)


class Player(NamedTuple):
    """A member of the fleet and its channel."""

    name: str
    channel: Channel
    member: Member


class Players:
    """All processes of the demonstration."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._players: list[Player] = []

    def start(self, order: Order) -> Player:
        """Start a process."""
        channel = Channel()
        member = self._fleet.start(order.role, order.name, partial(play, order, channel))
        self._players.append(Player(order.name, channel, member))
        return self._players[-1]

    def start_idle(self, *orders: Order) -> None:
        """Start processes that have nothing to do yet; return when all of them are ready."""
        waiting = {self.start(order) for order in orders}
        deadline = time.monotonic() + READY_LIMIT_S
        while waiting and time.monotonic() < deadline:
            waiting -= {player for player, it in self.listen() if isinstance(it, Ready)}
        if waiting:
            names = ", ".join(sorted(player.name for player in waiting))
            raise Trouble(f"{names} did not start within {READY_LIMIT_S} s")

    def listen(self) -> Iterator[tuple[Player, Message]]:
        """The messages that have arrived, as soon as there is one, or none after a tick.

        Raises `Trouble` where a process has ended that was neither killed nor dismissed.
        """
        if wrong := next(filter(None, (it.failure() for it in self._fleet.members)), None):
            raise Trouble(wrong)
        ready = wait([player.channel.messages for player in self._players], TICK_S)
        for player in self._players:
            if player.channel.messages in ready:
                yield player, player.channel.messages.recv()

    def dismiss(self) -> None:
        """Ask all processes to end, and require that they do so in good order."""
        if wrongs := self._fleet.dismiss():
            raise Trouble(", ".join(wrongs))


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
