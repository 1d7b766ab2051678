"""What falls on the processes and on the server: a seeded plan without an end."""

from collections.abc import Iterator
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct


class Weapon(StrEnum):
    """How somebody is struck."""

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


WEIGHTS: Final = {
    Weapon.KILL_WORKER: 38,
    Weapon.KILL_CHILD: 14,
    Weapon.SUSPEND_WORKER: 5,
    Weapon.SUSPEND_PARENT: 3,
    Weapon.SUSPEND_CHILD: 3,
    Weapon.KILL_SWEEPER: 8,
    Weapon.SUSPEND_SWEEPER: 3,
    Weapon.KILL_FOLLOWER: 4,
    Weapon.KILL_STARTER: 4,
    Weapon.KILL_REBUILDER: 2,
    Weapon.KILL_REBUILDERS_CHILD: 2,
    Weapon.CUT: 8,
    Weapon.KILL_BACKEND: 2,
    Weapon.KILL_SERVER: 2,
    Weapon.FILL_DISK: 1,
    Weapon.CHANGE_SETTING: 6,
}

KILLS: Final = frozenset(weapon for weapon in Weapon if weapon.name.startswith("KILL_"))
"""SIGKILL, to whomever."""

MEAN_PAUSE_S: Final = 0.2
LONGEST_S: Final = 3.0


class Blow(Struct, frozen=True, kw_only=True):
    """One blow: after which pause, with what, at which of those that may be struck (as a share of
    them, from 0 to 1), and for how long, where it lasts."""

    weapon: Weapon
    pause_s: float
    aim: float
    length_s: float


def blows(seed: int, *, has_small_disk: bool = True) -> Iterator[Blow]:
    """The plan of a seed."""
    random = Random(seed)  # noqa: S311 - a plan, no secret
    weapons, weights = zip(*WEIGHTS.items(), strict=True)
    while True:
        [weapon] = random.choices(weapons, weights)
        blow = Blow(
            weapon=weapon,
            pause_s=random.expovariate(1 / MEAN_PAUSE_S),
            aim=random.random(),
            length_s=random.uniform(0.05, LONGEST_S),
        )
        if has_small_disk or weapon is not Weapon.FILL_DISK:
            yield blow
