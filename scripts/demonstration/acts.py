"""The two acts: the job undisturbed, and the same job with workers that are struck down."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from rich.markup import escape

import recovery_journal as rj
from scripts.demonstration.blow import Blow, Struck, Weapon, blows
from scripts.demonstration.executions import Executions
from scripts.demonstration.fleet import Fleet, Member
from scripts.demonstration.job import Moment, Statistics
from scripts.demonstration.message import Arrived, Ended, Message, Order, Role, Said
from scripts.demonstration.screen import Screen
from scripts.demonstration.trouble import Trouble

UNDISTURBED: Final = "undisturbed"
DISTURBED: Final = "disturbed"
WORKER_COUNT: Final = 5
WAIT_LIMIT_S: Final = 120


class Setting(Struct, frozen=True, kw_only=True):
    """Where it is played, with which job, and with which leases while it is disturbed."""

    dsn: str
    executions: Path
    given: Statistics
    limits: rj.Limits

    @property
    def file_count(self) -> int:
        """How many run steps the job has."""
        return len(self.given["paths"])


class Waking(Struct, frozen=True, kw_only=True):
    """How many files the suspended worker still executed once it was awake."""

    worker_id: str
    execution_count: int


class Acts:
    """Starts the processes, watches them, and strikes."""

    def __init__(self, setting: Setting, fleet: Fleet, screen: Screen) -> None:
        self._setting = setting
        self._fleet = fleet
        self._screen = screen
        self._executions = Executions(setting.executions)
        self._blows: dict[tuple[Moment, int], Blow] = {}
        self._sleeper: tuple[Member, int] | None = None
        self.struck: list[Struck] = []

    def undisturbed(self) -> None:
        """One worker does all of it, under the leases that everyone gets by default."""
        order = self._order(Role.WORKER, "worker-0", run_id=UNDISTURBED)
        self._fleet.start(replace(order, limits=rj.Limits()))
        self._watch(UNDISTURBED)

    def disturbed(self) -> Waking:
        """Several workers, a sweeper and a follower; the blows fall, and the job is finished."""
        every = self._setting.given["checkpoint_every"]
        self._blows = {blow.place: blow for blow in blows(self._setting.file_count, every)}
        self._fleet.start_idle(
            self._order(Role.SWEEPER, "sweeper"),
            self._order(Role.FOLLOWER, "follower"),
            *(self._order(Role.WORKER, f"worker-{no}") for no in range(2, WORKER_COUNT + 1)),
        )
        self._fleet.start(self._order(Role.WORKER, "worker-1", run_id=DISTURBED))
        self._watch(DISTURBED)
        return self._wake()

    # -- watching --------------------------------------------------------------------------

    def _watch(self, run_id: str) -> None:
        """Listen and strike until somebody has completed the job."""
        with self._screen.bar(self._setting.file_count) as show:
            for member, message in self._heard(
                "the job to be completed", lambda: show(self._executions.file_count(run_id))
            ):
                match message:
                    case Arrived(moment=Moment.STARTED):
                        self._tell_start(member, message)
                    case Arrived():
                        self._answer(member, message)
                    case Said(text=text):
                        self._screen.caption(f"{member.name}: {escape(text)}")
                    case Ended(outcome="completed"):
                        self._screen.caption(f"{member.name} completes the job")
                        return
                    case Ended(outcome="failed"):
                        raise Trouble(f"{member.name} failed at the job")
                    case _:
                        pass

    def _heard(
        self, awaited: str, look: Callable[[], object] = lambda: None
    ) -> Iterator[tuple[Member, Message]]:
        deadline = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < deadline:
            yield from self._fleet.listen()
            look()
        raise Trouble(f"waited {WAIT_LIMIT_S} s in vain for {awaited}")

    def _tell_start(self, member: Member, message: Arrived) -> None:
        where = f"after file {message.ordinal}" if message.ordinal else "with the first file"
        self._screen.caption(f"{member.name} works, starting {where}")

    # -- striking --------------------------------------------------------------------------

    def _answer(self, member: Member, message: Arrived) -> None:
        """Whoever is the first at the place of a blow gets it; others may pass."""
        blow = self._blows.pop((message.moment, message.ordinal), None)
        if blow is None:
            member.release()
            return
        self._screen.caption(
            f"{member.name} [red]{blow.weapon}[/red]: file {blow.ordinal} is {blow.moment}"
        )
        self._strike(blow.weapon, member, message.process_id)
        self.struck.append(Struck(blow=blow, worker_id=member.name))

    def _strike(self, weapon: Weapon, member: Member, child_id: int) -> None:
        match weapon:
            case Weapon.KILL:
                self._fleet.kill(member)
            case Weapon.KILL_CHILD:
                member.kill_child(child_id)
            case Weapon.SUSPEND:
                self._sleeper = (member, child_id)
                member.suspend(child_id)
                member.release()  # once it is awake, nothing holds it back but its fence

    def _wake(self) -> Waking:
        if self._sleeper is None or self._blows:
            raise Trouble("the job was completed before every blow had fallen")
        member, child_id = self._sleeper
        before = self._execution_count(child_id)
        self._screen.caption(
            f"{member.name} [green]SIGCONT[/green]: it still believes in its lease"
        )
        member.wake()
        self._watch_sleeper(member)
        return Waking(
            worker_id=member.name, execution_count=self._execution_count(child_id) - before
        )

    def _watch_sleeper(self, sleeper: Member) -> None:
        for member, message in self._heard("the woken worker to stop"):
            if isinstance(message, Said):
                self._screen.caption(f"{member.name}: {escape(message.text)}")
            elif member is sleeper and isinstance(message, Ended):
                self._screen.caption(f"{member.name} stops working on it: {message.outcome}")
                return

    def _execution_count(self, process_id: int) -> int:
        return len(self._executions.of(DISTURBED).get(process_id, ()))

    def _order(self, role: Role, name: str, *, run_id: str | None = None) -> Order:
        return Order(
            role=role,
            name=name,
            dsn=self._setting.dsn,
            executions=str(self._setting.executions),
            limits=self._setting.limits,
            run_id=run_id,
            given=self._setting.given if run_id else {},
            places=tuple(self._blows) if role is Role.WORKER else (),
        )
