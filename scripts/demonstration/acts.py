"""The two acts: the job undisturbed, and the same job with faults of its workers."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from rich.markup import escape

import recovery_journal as rj
from scripts.demonstration.job import Executions, Moment, Statistics
from scripts.demonstration.players import (
    Arrived,
    Ended,
    Message,
    Order,
    Player,
    Players,
    Said,
    Trouble,
)
from scripts.harness.life import Role
from scripts.harness.screen import Screen


class Kind(StrEnum):
    """The kind of a worker's fault."""

    KILL = "SIGKILL"
    KILL_CHILD = "SIGKILL for its child alone"
    SUSPEND = "SIGSTOP"


EVIDENCE = {Kind.KILL: "session_lost", Kind.KILL_CHILD: "reported", Kind.SUSPEND: "ttl"}
"""The evidence on which such a worker's lease must be lost."""


class Fault(Struct, frozen=True, kw_only=True):
    """A fault of the first worker that reaches this moment of the job."""

    kind: Kind
    moment: Moment
    ordinal: int

    @property
    def place(self) -> tuple[Moment, int]:
        """Where it happens."""
        return self.moment, self.ordinal


class Struck(Struct, frozen=True, kw_only=True):
    """A fault that has happened, and to which worker."""

    fault: Fault
    worker_id: str


def plan(file_count: int, checkpoint_every: int) -> tuple[Fault, ...]:
    """One of each kind of death, spread over the job; the suspended worker comes last, so that it
    sleeps while its job is finished elsewhere."""
    a_checkpoint = checkpoint_every * round(file_count / 3 / checkpoint_every)
    return (
        Fault(kind=Kind.KILL, moment=Moment.DONE, ordinal=file_count * 2 // 11),
        # The run step after which a checkpoint is due, so the longest tail there can be.
        Fault(kind=Kind.KILL, moment=Moment.RECORDED, ordinal=a_checkpoint),
        Fault(kind=Kind.KILL_CHILD, moment=Moment.RECORDED, ordinal=file_count * 5 // 9),
        Fault(kind=Kind.SUSPEND, moment=Moment.RECORDED, ordinal=file_count * 7 // 9),
    )


UNDISTURBED: Final = "undisturbed"
DISTURBED: Final = "disturbed"
WORKER_COUNT: Final = 5
WAIT_LIMIT_S: Final = 120


class Plan(Struct, frozen=True, kw_only=True):
    """The job, the leases while it is disturbed, and where executions are noted."""

    executions: Path
    given: Statistics
    limits: rj.Limits

    @property
    def file_count(self) -> int:
        """How many run steps the job has."""
        return len(self.given["paths"])


class Waking(Struct, frozen=True, kw_only=True):
    """How many files the suspended worker still executed after it was woken."""

    worker_id: str
    execution_count: int


class Acts:
    """Starts the processes, listens to them, and injects the faults."""

    def __init__(self, plan: Plan, players: Players, screen: Screen) -> None:
        self._plan = plan
        self._players = players
        self._screen = screen
        self._executions = Executions(plan.executions)
        self._faults: dict[tuple[Moment, int], Fault] = {}
        self._sleeper: tuple[Player, int] | None = None
        self.struck: list[Struck] = []

    def undisturbed(self) -> None:
        """One worker does all of it, under the default leases."""
        order = self._order(Role.WORKER, "worker-0", run_id=UNDISTURBED)
        self._players.start(replace(order, limits=rj.Limits()))
        self._watch(UNDISTURBED)

    def disturbed(self) -> Waking:
        """Several workers, a sweeper and a follower; all faults happen, and the job is finished."""
        every = self._plan.given["checkpoint_every"]
        self._faults = {fault.place: fault for fault in plan(self._plan.file_count, every)}
        self._players.start_idle(
            self._order(Role.SWEEPER, "sweeper"),
            self._order(Role.FOLLOWER, "follower"),
            *(self._order(Role.WORKER, f"worker-{no}") for no in range(2, WORKER_COUNT + 1)),
        )
        self._players.start(self._order(Role.WORKER, "worker-1", run_id=DISTURBED))
        self._watch(DISTURBED)
        return self._wake()

    def _watch(self, run_id: str) -> None:
        """Listen and inject faults until the job is completed."""
        with self._screen.bar(self._plan.file_count, "", "files", is_spoken=False) as show:
            for player, message in self._heard(
                "the job to be completed", lambda: show(self._executions.file_count(run_id), "")
            ):
                match message:
                    case Arrived(moment=Moment.STARTED, ordinal=ordinal):
                        where = f"after file {ordinal}" if ordinal else "with the first file"
                        self._screen.caption(f"{player.name} works, starting {where}")
                    case Arrived():
                        self._answer(player, message)
                    case Ended(outcome="completed"):
                        self._screen.caption(f"{player.name} completes the job")
                        return
                    case Ended(outcome="failed"):
                        raise Trouble(f"{player.name} failed at the job")

    def _heard(
        self, awaited: str, refresh: Callable[[], object] = lambda: None
    ) -> Iterator[tuple[Player, Message]]:
        """Messages until the caller has heard enough; sentences are shown here."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < deadline:
            for player, message in self._players.listen():
                if isinstance(message, Said):
                    self._screen.caption(f"{player.name}: {escape(message.text)}")
                yield player, message
            refresh()
        raise Trouble(f"waited {WAIT_LIMIT_S} s in vain for {awaited}")

    def _answer(self, player: Player, message: Arrived) -> None:
        """The first worker at the place of a fault gets it; others may pass."""
        fault = self._faults.pop((message.moment, message.ordinal), None)
        if fault is None:
            player.channel.release()
            return
        self._screen.caption(
            f"{player.name} [red]{fault.kind}[/red]: file {fault.ordinal} is {fault.moment}"
        )
        match fault.kind:
            case Kind.KILL:
                player.member.kill()
            case Kind.KILL_CHILD:
                os.kill(message.process_id, signal.SIGKILL)
            case Kind.SUSPEND:
                self._sleeper = (player, message.process_id)
                player.member.suspend(inf, itself=True, children=True)
                player.channel.release()  # once it is awake, only its fence holds it back
        self.struck.append(Struck(fault=fault, worker_id=player.name))

    def _wake(self) -> Waking:
        if self._sleeper is None or self._faults:
            raise Trouble("the job was completed before every fault had happened")
        sleeper, child_id = self._sleeper
        before = self._execution_count(child_id)
        self._screen.caption(
            f"{sleeper.name} [green]SIGCONT[/green]: it still believes in its lease"
        )
        sleeper.member.wake(at_once=True)
        for player, message in self._heard("the woken worker to stop"):
            if player is sleeper and isinstance(message, Ended):
                self._screen.caption(f"{player.name} stops working on it: {message.outcome}")
                break
        return Waking(
            worker_id=sleeper.name, execution_count=self._execution_count(child_id) - before
        )

    def _execution_count(self, process_id: int) -> int:
        return len(self._executions.of(DISTURBED).get(process_id, ()))

    def _order(self, role: Role, name: str, *, run_id: str | None = None) -> Order:
        return Order(
            role=role,
            name=name,
            executions=str(self._plan.executions),
            limits=self._plan.limits,
            run_id=run_id,
            given=self._plan.given if run_id else {},
            places=tuple(self._faults) if role is Role.WORKER else (),
        )
