"""Faults of the processes and of the server: a seeded plan without an end."""

from collections.abc import Iterator
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct


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


WEIGHTS: Final = {
    Kind.KILL_WORKER: 38,
    Kind.KILL_CHILD: 14,
    Kind.SUSPEND_WORKER: 5,
    Kind.SUSPEND_PARENT: 3,
    Kind.SUSPEND_CHILD: 3,
    Kind.KILL_SWEEPER: 8,
    Kind.SUSPEND_SWEEPER: 3,
    Kind.KILL_FOLLOWER: 4,
    Kind.KILL_STARTER: 4,
    Kind.KILL_REBUILDER: 2,
    Kind.KILL_REBUILDERS_CHILD: 2,
    Kind.CUT: 8,
    Kind.KILL_BACKEND: 2,
    Kind.KILL_SERVER: 2,
    Kind.FILL_DISK: 1,
    Kind.CHANGE_SETTING: 6,
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
    kinds, weights = zip(*WEIGHTS.items(), strict=True)
    while True:
        [kind] = random.choices(kinds, weights)
        fault = Fault(
            kind=kind,
            pause_s=random.expovariate(1 / MEAN_PAUSE_S),
            aim=random.random(),
            length_s=random.uniform(0.05, LONGEST_S),
        )
        if has_small_disk or kind is not Kind.FILL_DISK:
            yield fault
