"""A fleet of workers and its sweeper, and what all its attempts share: chance, clock, epochs."""

import random
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from recovery_journal.domain.lease import Actor, Fence, Holder, Incarnation

WORKER_COUNT: Final = 200
WORKERS_PER_HOST: Final = 8
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
TICK: Final = timedelta(milliseconds=2)
PROGRAM: Final = "recovery-journal 0.1.0"


class Fleet:
    """All chance comes from the seed, so equal fleets make equal histories.

    It is the `no`-th of so many fleets that write the same log: no two of them draw the same
    epoch, of which each fleet's first is above `after_epoch`, or have a worker in common.
    """

    def __init__(
        self, seed: int, *, no: int = 0, fleet_count: int = 1, after_epoch: int = 0
    ) -> None:
        self._chance = random.Random(f"{seed} {no} {fleet_count}")  # noqa: S311 - to be repeatable
        self._epochs = count(after_epoch + no + 1, fleet_count)
        self._now = BEGINNING
        first = no * WORKER_COUNT
        self._workers = [_worker(self.name(), first + at) for at in range(WORKER_COUNT)]
        self.sweeper = Actor(role="sweeper", host=f"sweeper-{no}", pid=4711, program=PROGRAM)

    def name(self) -> str:
        """A unique name."""
        return f"{self._chance.getrandbits(128):032x}"

    def below(self, limit: int) -> int:
        """A random whole number from 0 on."""
        return int(self._chance.random() * limit)

    def worker(self) -> Holder:
        """Any of the workers."""
        return self._workers[self.below(WORKER_COUNT)]

    def fence(self) -> Fence:
        """The next fence: its epoch is above all that this fleet has drawn."""
        return Fence(epoch=next(self._epochs), lease_id=self.name())

    def tick(self) -> datetime:
        """The clock, which has advanced."""
        self._now += TICK
        return self._now


def actor(holder: Holder) -> Actor:
    """A worker as the author of an event."""
    life = holder.incarnation
    return Actor(
        role="worker", host=life.host, pid=life.pid, program=PROGRAM, name=holder.worker_id
    )


def _worker(boot_id: str, no: int) -> Holder:
    life = Incarnation(
        host=f"host-{no // WORKERS_PER_HOST}", boot_id=boot_id, pid=1000 + no, started="8123.5"
    )
    return Holder(worker_id=f"worker-{no}", incarnation=life)
