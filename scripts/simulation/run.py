"""One run of the simulation: a seed's cast and faults, then calm, then the reckoning."""

import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from os import urandom
from random import Random
from threading import Thread
from types import ModuleType
from typing import Any, Final
from uuid import UUID, uuid4

from msgspec import Struct

import recovery_journal as rj
from recovery_journal.domain.lease import OPEN_STATUSES
from recovery_journal.process import identity
from scripts.simulation.cast import LIMITS, Cast, Run
from scripts.simulation.faults import Fault, GivenFaults, SeededFaults
from scripts.simulation.network import Network
from scripts.simulation.promises import Promises
from scripts.simulation.server import Monitor, fresh_database
from scripts.simulation.world import Violation, VirtualTime, World

TROUBLE_S: Final = 25.0
REST_LIMIT_S: Final = 120.0
"""How long after the last fault every attempt must have ended."""

# The newest checkpoint of some run; one that a transaction has locked is passed over.
DAMAGED: Final = """
WITH newest AS (
    SELECT run_id, checkpoint_no FROM checkpoints AS one
    WHERE NOT is_void AND state IS NOT NULL AND NOT EXISTS (
        SELECT FROM checkpoints AS later
        WHERE later.run_id = one.run_id AND later.checkpoint_no > one.checkpoint_no
    )
    ORDER BY run_id
    OFFSET %s LIMIT 1
    FOR UPDATE SKIP LOCKED
)
"""
SPOIL: Final = DAMAGED + "UPDATE checkpoints SET state = 'spoilt' FROM newest "
DELETE: Final = DAMAGED + "DELETE FROM checkpoints USING newest "
WHERE: Final = """
WHERE checkpoints.run_id = newest.run_id AND checkpoints.checkpoint_no = newest.checkpoint_no
RETURNING checkpoints.run_id
"""


ORIGINALS: Final = (time, random, uuid4, urandom, identity.incarnation, Thread)
"""The originals that our stand-ins replace in the product's modules; others are left alone."""


class Outcome(Struct, frozen=True, kw_only=True):
    """The outcome of a run. `trace` is a digest of all calls of all actors in their order: equal
    seeds have equal traces."""

    seed: int
    violation: str
    faults: dict[int, Fault]
    call_count: int
    seconds: float
    statuses: dict[str, int]
    event_count: int
    trace: str


def simulate(dsn: str, seed: int, faults: Mapping[int, Fault] | None = None) -> Outcome:
    """Run a seed on the simulation's server, with its own faults or with those given."""
    with fresh_database(dsn) as database_dsn:
        monitor = Monitor(database_dsn)
        try:
            return _Simulation(database_dsn, monitor, seed, faults).run()
        finally:
            monitor.close()


class _Simulation:
    def __init__(
        self, dsn: str, monitor: Monitor, seed: int, faults: Mapping[int, Fault] | None
    ) -> None:
        self._seed = seed
        self._monitor = monitor
        self._draw = Random(f"cast {seed}")
        self._world = World(seed)
        self._promises = Promises(monitor, LIMITS)
        self._network = Network(
            self._world,
            monitor,
            SeededFaults(seed) if faults is None else GivenFaults(faults),
            on_commit=self._promises.look,
            on_damage=self._damage,
            on_clock=self._promises.doubt_clock,
        )
        self._cast = Cast(self._network, dsn, self._promises, self._runs())

    def run(self) -> Outcome:
        violation = ""
        with virtual(self._world, self._cast):
            try:
                self._act()
            except Violation as found:
                violation = str(found)
            except Exception:  # noqa: BLE001 - whatever else an actor met, no user should meet
                violation = traceback.format_exc()
            finally:
                self._world.end()
        return Outcome(
            seed=self._seed,
            violation=violation,
            faults=dict(self._network.met),
            call_count=self._network.call_no,
            seconds=self._world.now_s,
            statuses=dict(Counter(str(one) for one in self._promises.statuses.values())),
            event_count=self._promises.event_count,
            trace=sha256(repr(self._network.trace).encode()).hexdigest()[:16],
        )

    def _act(self) -> None:
        """Trouble, then calm until everything has ended, then the reckoning."""
        draw = self._draw
        self._cast.enter(
            workers=draw.randint(2, 4), sweepers=draw.randint(1, 3), followers=draw.randint(1, 2)
        )
        self._world.run(TROUBLE_S)
        self._network.calm()
        self._cast.is_calm = True
        self._world.run(self._world.now_s + REST_LIMIT_S, self._is_at_rest)
        if not self._is_at_rest():
            left = {name: str(one) for name, one in self._promises.statuses.items()}
            raise Violation(f"{REST_LIMIT_S:.0f} s after the last fault not all ended: {left}")
        self._world.end()
        self._reckon()

    def _reckon(self) -> None:
        """Nothing acknowledged is missing, every result is right, and every row of a projection
        is that of a fold of the log from its beginning."""
        self._promises.end()
        journal = self._cast.journal()
        try:
            for run in self._cast.runs.values():
                self._require_result(journal, run)
            rj.Follower(journal).catch_up(60)
            for checked in journal.check():
                if checked.differences:
                    raise Violation(f"{checked} differs from a fold of the log")
        finally:
            journal.close()

    def _require_result(self, journal: rj.Journal, run: Run) -> None:
        if self._promises.statuses.get(run.attempt_id) == "completed":
            result = journal.result(run.attempt_id)
            if result != run.result:
                raise Violation(f"{run.run_id} has the result {result}, and not {run.result}")

    def _is_at_rest(self) -> bool:
        statuses = self._promises.statuses
        is_begun = all(run.attempt_id in statuses for run in self._cast.runs.values())
        return is_begun and not any(status in OPEN_STATUSES for status in statuses.values())

    def _runs(self) -> list[Run]:
        draw = self._draw
        return [
            Run(f"run-{no}", draw.randint(2, 8), draw.randint(1, 4))
            for no in range(draw.randint(5, 12))
        ]

    def _damage(self, severity: float) -> None:
        statement = (SPOIL if severity < 0.5 else DELETE) + WHERE
        damaged = self._monitor.connection.execute(statement.encode(), [int(severity * 8) % 4])
        for (run_id,) in damaged:
            self._promises.doubt_tip(run_id)


class NoThread:
    """Stands for a thread that renews leases while another one waits for the server: it would wait
    in real time, and its exchanges would be no actor's."""

    def __init__(self, **_settings: Any) -> None:
        """Nothing is begun."""

    def start(self) -> None:
        """Do nothing."""

    def join(self) -> None:
        """Likewise."""


@contextmanager
def virtual(world: World, cast: Cast) -> Iterator[None]:
    """Give the product's modules our time, our random draws and ids, and an identity for each
    actor."""
    draw = Random(f"ids {world.random.random()}")
    stand_ins: dict[str, Any] = {
        "time": VirtualTime(world),
        "random": draw,
        "uuid4": lambda: UUID(int=draw.getrandbits(128), version=4),
        "urandom": draw.randbytes,
        "incarnation": cast.incarnation,
        "Thread": NoThread,
    }
    before: list[tuple[ModuleType, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "recovery_journal":
            continue
        for attribute in stand_ins:
            found = vars(module).get(attribute)
            if found is not None and found in ORIGINALS:
                before.append((module, attribute, found))
    try:
        for module, attribute, _ in before:
            setattr(module, attribute, stand_ins[attribute])
        yield
    finally:
        for module, attribute, found in before:
            setattr(module, attribute, found)
