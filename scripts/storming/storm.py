"""The storm itself: strike, wake, start again; then wait until the sea is calm."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import psycopg
from msgspec import Struct

from scripts.storming.blow import KILLS, Blow, Weapon, blows
from scripts.storming.fleet import Fleet
from scripts.storming.life import Setting
from scripts.storming.member import OPEN, Role
from scripts.storming.server import StormServer

TICK_S: Final = 0.02
LOOK_S: Final = 0.25  # between looks whether the server is there
CALM_LIMIT_S: Final = 90
"""By when everything that was begun must be finished, once nobody is struck any more."""

TARGETS: Final = {
    Weapon.KILL_WORKER: Role.WORKER,
    Weapon.KILL_SWEEPER: Role.SWEEPER,
    Weapon.KILL_FOLLOWER: Role.FOLLOWER,
    Weapon.KILL_STARTER: Role.STARTER,
    Weapon.KILL_REBUILDER: Role.REBUILDER,
    Weapon.KILL_CHILD: Role.WORKER,
    Weapon.KILL_REBUILDERS_CHILD: Role.REBUILDER,
    Weapon.SUSPEND_WORKER: Role.WORKER,
    Weapon.SUSPEND_PARENT: Role.WORKER,
    Weapon.SUSPEND_CHILD: Role.WORKER,
    Weapon.SUSPEND_SWEEPER: Role.SWEEPER,
}
"""Whom a weapon is for, where that is a process of ours."""


class Survived(Struct, kw_only=True):
    """What has been struck so far; a blow that found nobody is a miss. `wrongs` are what must not
    happen whatever falls on the fleet."""

    struck: Counter[Weapon]
    missed: int = 0
    cut_count: int = 0
    restart_count: int = 0
    wrongs: list[str] = []

    @property
    def kill_count(self) -> int:
        """How many were killed with SIGKILL."""
        return sum(count for weapon, count in self.struck.items() if weapon in KILLS)


class Storm:
    """Lets the blows of a seed fall on a fleet and its server."""

    def __init__(self, setting: Setting, server: StormServer, fleet: Fleet) -> None:
        self._setting = setting
        self._server = server
        self._fleet = fleet
        self._server_back_at: float | None = None
        self._disk_free_at: float | None = None
        self._looked_at = 0.0
        self.survived = Survived(struck=Counter())

    def rage(self, seed: int, length_s: float, show: Callable[[float, Survived], object]) -> None:
        """Strike for so long; `show` is told how long it has gone on, and what was struck."""
        began_at = time.monotonic()
        for blow in blows(seed, has_small_disk=self._server.disk is not None):
            due_at = time.monotonic() + blow.pause_s
            while (now := time.monotonic()) < min(due_at, began_at + length_s):
                self._tend()
                show(now - began_at, self.survived)
                time.sleep(TICK_S)
            if time.monotonic() >= began_at + length_s:
                return
            if self._strike(blow):
                self.survived.struck[blow.weapon] += 1
            else:
                self.survived.missed += 1

    def calm(self, show: Callable[[float, Survived], object]) -> None:
        """Let everything come back, and wait until all that was begun is finished."""
        began_at = time.monotonic()
        self._free_disk()
        self._server_back_at = None
        self._looked_at = -LOOK_S
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
                    f"{found} attempts were not finished {CALM_LIMIT_S} s after the last blow"
                )
                break
            show(spent_s, self.survived)
            time.sleep(LOOK_S)
        self.survived.wrongs += self._fleet.dismiss()

    def _tend(self) -> None:
        self.survived.wrongs += self._fleet.tend()
        now = time.monotonic()
        if self._disk_free_at is not None and now >= self._disk_free_at:
            self._free_disk()
        if self._server_back_at is not None and now >= self._server_back_at:
            self._server_back_at = None
        is_meant_to_be_away = self._server_back_at is not None or self._disk_free_at is not None
        if is_meant_to_be_away or now < self._looked_at + LOOK_S:
            return
        self._looked_at = now
        if not self._server.is_ready():
            self._server.start()
            self.survived.restart_count += 1

    def _free_disk(self) -> None:
        self._disk_free_at = None
        if self._server.disk:
            self._server.disk.free()

    def _strike(self, blow: Blow) -> bool:
        """Whether the blow found somebody."""
        match blow.weapon:
            case Weapon.CUT:
                count = self._server.cut(blow.aim)
                self.survived.cut_count += count
                return count > 0
            case Weapon.KILL_BACKEND:
                return self._server.kill_backend(blow.aim)
            case Weapon.KILL_SERVER:
                if self._disk_free_at is not None or not self._server.kill():
                    return False
                self._server_back_at = time.monotonic() + blow.length_s / 2
                return True
            case Weapon.CHANGE_SETTING:
                return self._server.change_setting(blow.aim)
            case Weapon.FILL_DISK:
                if self._server.disk is None or self._server_back_at is not None:
                    return False
                self._server.disk.fill()
                self._disk_free_at = time.monotonic() + blow.length_s
                return True
            case _:
                return self._strike_member(blow)

    def _strike_member(self, blow: Blow) -> bool:
        member = self._fleet.one(TARGETS[blow.weapon], blow.aim)
        if member is None:
            return False
        match blow.weapon:
            case Weapon.KILL_CHILD | Weapon.KILL_REBUILDERS_CHILD:
                return member.kill_child(blow.aim)
            case Weapon.SUSPEND_WORKER:
                return member.suspend(blow.length_s, itself=True, children=True)
            case Weapon.SUSPEND_PARENT | Weapon.SUSPEND_SWEEPER:
                return member.suspend(blow.length_s, itself=True, children=False)
            case Weapon.SUSPEND_CHILD:
                return member.suspend(blow.length_s, itself=False, children=True)
            case _:
                return member.kill()

    def _open_count(self) -> int | None:
        """How many attempts are not finished; None where the server does not say."""
        try:
            with psycopg.connect(self._setting.dsn) as connection:
                connection.execute(f"SET search_path = {self._setting.schema}".encode())
                row = connection.execute(OPEN.encode()).fetchone()
        except psycopg.OperationalError:
            return None
        assert row is not None
        return int(row[0])
