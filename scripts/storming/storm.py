"""The chaos test itself: inject faults and repair them; then wait until all is finished."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

import psycopg
from msgspec import Struct

from scripts.harness.fleet import Fleet
from scripts.harness.life import Role, Setting
from scripts.harness.parts import OPEN
from scripts.storming.server import StormServer


class Kind(StrEnum):
    """The kind of a fault."""

    KILL_WORKER = "worker killed"
    KILL_CHILD = "worker's child killed"
    SUSPEND_WORKER = "worker and child suspended"
    SUSPEND_PARENT = "worker suspended, its child not"
    SUSPEND_CHILD = "worker's child suspended"
    KILL_SWEEPER = "sweeper killed"
    SUSPEND_SWEEPER = "sweeper suspended"
    KILL_FOLLOWER = "follower killed"
    KILL_STARTER = "starter killed"
    KILL_REBUILDER = "rebuild killed"
    KILL_REBUILDERS_CHILD = "rebuild's process killed"
    CUT = "connections cut"
    KILL_BACKEND = "server's backend killed"
    KILL_SERVER = "server killed"
    FILL_DISK = "disk full"
    CHANGE_SETTING = "setting of the role or database changed"


class Target(NamedTuple):
    """How likely a kind of fault is, and which process of ours it hits, if any: itself, its
    children, or both."""

    weight: int
    role: Role | None = None
    itself: bool = True
    children: bool = False


FAULTS: Final = {
    Kind.KILL_WORKER: Target(38, Role.WORKER),
    Kind.KILL_CHILD: Target(14, Role.WORKER, itself=False, children=True),
    Kind.SUSPEND_WORKER: Target(5, Role.WORKER, children=True),
    Kind.SUSPEND_PARENT: Target(3, Role.WORKER),
    Kind.SUSPEND_CHILD: Target(3, Role.WORKER, itself=False, children=True),
    Kind.KILL_SWEEPER: Target(8, Role.SWEEPER),
    Kind.SUSPEND_SWEEPER: Target(3, Role.SWEEPER),
    Kind.KILL_FOLLOWER: Target(4, Role.FOLLOWER),
    Kind.KILL_STARTER: Target(4, Role.STARTER),
    Kind.KILL_REBUILDER: Target(2, Role.REBUILDER),
    Kind.KILL_REBUILDERS_CHILD: Target(2, Role.REBUILDER, itself=False, children=True),
    Kind.CUT: Target(8),
    Kind.KILL_BACKEND: Target(2),
    Kind.KILL_SERVER: Target(2),
    Kind.FILL_DISK: Target(1),
    Kind.CHANGE_SETTING: Target(6),
}

KILLS: Final = frozenset(kind for kind in Kind if kind.name.startswith("KILL_"))
"""Those that send SIGKILL."""

MEAN_PAUSE_S: Final = 0.2
LONGEST_S: Final = 3.0


class Fault(Struct, frozen=True, kw_only=True):
    """One fault: after which pause it comes, which of the possible targets it hits (as a share of
    them, from 0 to 1), and how long it lasts, where it does."""

    kind: Kind
    pause_s: float
    aim: float
    length_s: float


def plan(seed: int, *, has_small_disk: bool = True) -> Iterator[Fault]:
    """The plan of a seed."""
    random = Random(seed)  # noqa: S311 - a plan, no secret
    weights = [target.weight for target in FAULTS.values()]
    while True:
        [kind] = random.choices(list(FAULTS), weights)
        fault = Fault(
            kind=kind,
            pause_s=random.expovariate(1 / MEAN_PAUSE_S),
            aim=random.random(),
            length_s=random.uniform(0.05, LONGEST_S),
        )
        if has_small_disk or kind is not Kind.FILL_DISK:
            yield fault


TICK_S: Final = 0.02
LOOK_S: Final = 0.25  # between checks whether the server is there
CALM_LIMIT_S: Final = 90
"""By when everything that was begun must be finished after the last fault."""


class Survived(Struct, kw_only=True):
    """Faults so far; one without a target is a miss. `wrongs` must not happen under any faults."""

    struck: Counter[Kind]
    missed: int = 0
    cut_count: int = 0
    restart_count: int = 0
    wrongs: list[str] = []

    def __str__(self) -> str:
        return f"{self.kill_count} killed, {self.restart_count} server restarts"

    @property
    def kill_count(self) -> int:
        """How many were killed with SIGKILL."""
        return sum(count for kind, count in self.struck.items() if kind in KILLS)


class Storm:
    """Injects the faults of a seed into a fleet and its server."""

    def __init__(self, setting: Setting, server: StormServer, fleet: Fleet) -> None:
        self._setting = setting
        self._server = server
        self._fleet = fleet
        self._server_back_at = 0.0
        self._disk_free_at: float | None = None
        self._checked_at = 0.0
        self.survived = Survived(struck=Counter())

    def rage(self, seed: int, length_s: float, show: Callable[[float, str], object]) -> None:
        """Inject faults for so long; `show` is called with the seconds so far and a summary."""
        began_at = time.monotonic()
        for fault in plan(seed, has_small_disk=self._server.disk is not None):
            due_at = time.monotonic() + fault.pause_s
            while (now := time.monotonic()) < min(due_at, began_at + length_s):
                self._tend()
                show(now - began_at, str(self.survived))
                time.sleep(TICK_S)
            if time.monotonic() >= began_at + length_s:
                return
            if self._strike(fault):
                self.survived.struck[fault.kind] += 1
            else:
                self.survived.missed += 1

    def calm(self, show: Callable[[float, str], object]) -> None:
        """Repair everything, and wait until all that was begun is finished."""
        began_at = time.monotonic()
        self._free_disk()
        self._server_back_at = 0.0
        self._checked_at = -LOOK_S
        self._fleet.calm()
        self._tend()
        while not self._server.reset_settings() and time.monotonic() < began_at + CALM_LIMIT_S:
            time.sleep(LOOK_S)
            self._tend()
        self.survived.wrongs += self._fleet.dismiss(Role.STARTER)
        while (count := self._open_count()) != 0:
            self._tend()
            spent_s = time.monotonic() - began_at
            if spent_s > CALM_LIMIT_S:
                found = "an unknown number of" if count is None else count
                self.survived.wrongs.append(
                    f"{found} attempts were not finished {CALM_LIMIT_S} s after the last fault"
                )
                break
            show(spent_s, str(self.survived))
            time.sleep(LOOK_S)
        self.survived.wrongs += self._fleet.dismiss()

    def _tend(self) -> None:
        self.survived.wrongs += self._fleet.tend()
        now = time.monotonic()
        if self._disk_free_at is not None and now >= self._disk_free_at:
            self._free_disk()
        is_meant_to_be_away = now < self._server_back_at or self._disk_free_at is not None
        if is_meant_to_be_away or now < self._checked_at + LOOK_S:
            return
        self._checked_at = now
        if not self._server.is_ready():
            self._server.start()
            self.survived.restart_count += 1

    def _free_disk(self) -> None:
        self._disk_free_at = None
        if self._server.disk:
            self._server.disk.free()

    def _strike(self, fault: Fault) -> bool:
        """Whether the fault had a target."""
        match fault.kind:
            case Kind.CUT:
                count = self._server.cut(fault.aim)
                self.survived.cut_count += count
                return count > 0
            case Kind.KILL_BACKEND:
                return self._server.kill_backend(fault.aim)
            case Kind.KILL_SERVER:
                if self._disk_free_at is not None or not self._server.kill():
                    return False
                self._server_back_at = time.monotonic() + fault.length_s / 2
                return True
            case Kind.CHANGE_SETTING:
                return self._server.change_setting(fault.aim)
            case Kind.FILL_DISK:
                if self._server.disk is None or time.monotonic() < self._server_back_at:
                    return False
                self._server.disk.fill()
                self._disk_free_at = time.monotonic() + fault.length_s
                return True
            case _:
                return self._strike_member(fault)

    def _strike_member(self, fault: Fault) -> bool:
        target = FAULTS[fault.kind]
        assert target.role is not None
        member = self._fleet.one(target.role, fault.aim)
        if member is None:
            return False
        if fault.kind in KILLS:
            return member.kill() if target.itself else member.kill_child(fault.aim)
        return member.suspend(fault.length_s, itself=target.itself, children=target.children)

    def _open_count(self) -> int | None:
        """How many attempts are not finished; None while the server is away."""
        try:
            [row] = self._server.rows(OPEN, search_path=self._setting.schema)
        except psycopg.OperationalError:
            return None
        return int(row["count"])
