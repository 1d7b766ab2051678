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
    """Everything that is left to chance comes from the seed, so equal fleets tell equal stories.

    It is the `no`-th of so many fleets that write the same log: no two of them draw the same
    epoch or have a worker in common.
    """

    def __init__(self, seed: int, *, no: int = 0, fleet_count: int = 1) -> None:
        self._chance = random.Random(f"{seed} {no} {fleet_count}")  # noqa: S311 - to be repeatable
        self._epochs = count(no + 1, fleet_count)
        self._now = BEGINNING
        first = no * WORKER_COUNT
        self._workers = [_worker(self.name(), first + at) for at in range(WORKER_COUNT)]
        self._tellers = {holder.worker_id: _teller(holder) for holder in self._workers}
        self.sweeper = Actor(role="sweeper", host=f"sweeper-{no}", pid=4711, program=PROGRAM)

    def name(self) -> str:
        """A name that nothing else has."""
        return f"{self._chance.getrandbits(128):032x}"

    def below(self, limit: int) -> int:
        """A whole number from 0 on."""
        return int(self._chance.random() * limit)

    def worker(self) -> Holder:
        """Any of the workers."""
        return self._workers[self.below(WORKER_COUNT)]

    def teller(self, holder: Holder) -> Actor:
        """A worker as the one who records an event."""
        return self._tellers[holder.worker_id]

    def fence(self) -> Fence:
        """The next fence: its epoch is above all that this fleet has drawn."""
        return Fence(epoch=next(self._epochs), lease_id=self.name())

    def tick(self) -> datetime:
        """The clock, which has moved on."""
        self._now += TICK
        return self._now


def _worker(boot_id: str, no: int) -> Holder:
    life = Incarnation(
        host=f"host-{no // WORKERS_PER_HOST}", boot_id=boot_id, pid=1000 + no, started="8123.5"
    )
    return Holder(worker_id=f"worker-{no}", incarnation=life)


def _teller(holder: Holder) -> Actor:
    return Actor(
        role="worker",
        host=holder.incarnation.host,
        pid=holder.incarnation.pid,
        program=PROGRAM,
        name=holder.worker_id,
    )
