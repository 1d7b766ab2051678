"""The wire between an actor and the server: each call is a turn of the scheduler, and may fail."""

from collections.abc import Callable
from typing import Any, Final, NoReturn

import psycopg
from psycopg.abc import PQGen

from recovery_journal.postgres.database import IDLE_IN_TRANSACTION_S
from scripts.simulation.connection import COPY, LEAVE, SimulatedConnection, name_of
from scripts.simulation.faults import Fault, FaultKind, Faults, GivenFaults
from scripts.simulation.server import Monitor
from scripts.simulation.world import Actor, World

LONGEST_PAUSE_S: Final = 15.0
LONGEST_OUTAGE_S: Final = 12.0
LATEST_S: Final = 9.0
FARTHEST_S: Final = 20.0

SILENT: Final = "simulated: the connection was cut"


class Network:
    """All connections of one run, and what befalls them."""

    def __init__(
        self,
        world: World,
        monitor: Monitor,
        faults: Faults,
        *,
        on_commit: Callable[[], None],
        on_damage: Callable[[float], None],
        on_clock: Callable[[], None],
    ) -> None:
        self.world = world
        self.monitor = monitor
        self.faults: Faults = faults
        self.met: dict[int, Fault] = {}
        self.call_no = 0
        self.trace: list[tuple[str, str]] = []
        self._on_commit = on_commit
        self._on_damage = on_damage
        self._on_clock = on_clock
        self._offset_s = 0.0
        self._up_at_s = 0.0
        self._connections: dict[Actor, set[SimulatedConnection]] = {}

    def calm(self) -> None:
        """No more faults from now on."""
        self.faults = GivenFaults({})

    def open(self, connect: Callable[[], SimulatedConnection]) -> SimulatedConnection:
        """Connect the current actor, if it and the server are there; without an actor, at once."""
        actor = self.world.current
        if actor is None:
            return connect()
        self._turn(actor, None, "connect")
        connection = connect()
        connection.network, connection.actor = self, actor
        self._of(actor).add(connection)
        return connection

    def call(self, connection: SimulatedConnection, gen: PQGen[Any]) -> Any:  # noqa: ANN401 - whatever it answers
        """One exchange with the server: before it others may act, and something may go wrong."""
        actor = connection.actor
        if actor.is_dying:
            gen.close()
            self.world.die()
        if connection.is_given_up:
            gen.close()
            raise psycopg.OperationalError(SILENT)
        kind = name_of(gen)
        if kind == COPY:  # only fills a buffer, in as many pieces as rows came in whatever order
            return connection.drive(gen)
        try:
            fault = self._turn(actor, connection, kind)
        except BaseException:
            gen.close()
            raise
        may_write = connection.may_write(gen)
        if fault is FaultKind.LATE and connection.decides(gen):
            self._send_late(connection, gen, is_commit=kind == LEAVE)
            raise psycopg.OperationalError(SILENT)
        answer = connection.drive(gen)
        if may_write and not connection.is_in_transaction:
            self._on_commit()
        if fault is FaultKind.CRASH_AFTER:
            self.world.die()
        if fault is FaultKind.LOST_REPLY:
            self._fail(connection, SILENT)
        return answer

    def _turn(
        self, actor: Actor, connection: SimulatedConnection | None, kind: str
    ) -> FaultKind | None:
        """Give way, then suffer what happens before the call; what is to happen after it."""
        self.world.sleep(0)
        if actor.is_dying:
            self.world.die()
        self.call_no += 1
        self.trace.append((repr(actor), kind))
        fault = self.faults.at(self.call_no)
        if fault is not None:
            self.met[self.call_no] = fault
            self._befall(actor, connection, fault)
        if self.world.now_s < self._up_at_s:
            self._fail(connection, "simulated: the server is away")
        self.monitor.set_clock(self.world.now_s + self._offset_s)
        return None if fault is None else fault.kind

    def _befall(self, actor: Actor, connection: SimulatedConnection | None, fault: Fault) -> None:
        match fault.kind:
            case FaultKind.CRASH_BEFORE:
                self.world.die()
            case FaultKind.LOST_CALL:
                self._fail(connection, SILENT)
            case FaultKind.PAUSE:
                self._pause(connection, fault.severity * LONGEST_PAUSE_S)
                if actor.is_dying:
                    self.world.die()
            case FaultKind.CUT_ALL:
                self._cut(list(self._of(actor)))
            case FaultKind.RESTART:
                self._restart(fault.severity * LONGEST_OUTAGE_S)
            case FaultKind.CLOCK:
                self._offset_s += (2 * fault.severity - 1) * FARTHEST_S
                self._on_clock()
            case FaultKind.DAMAGE:
                self._on_damage(fault.severity)

    def _pause(self, connection: SimulatedConnection | None, seconds: float) -> None:
        """The server ends a session that is idle in a transaction for too long."""
        if connection is not None:
            limit_s = IDLE_IN_TRANSACTION_S
            if connection.is_in_transaction and seconds > limit_s:
                self.world.later(limit_s, lambda: self._cut([connection]))
        self.world.sleep(seconds)

    def _restart(self, seconds: float) -> None:
        """All sessions end now; none begins for a while, and then the server is a new one."""
        self._cut([one for group in self._connections.values() for one in group])
        self._up_at_s = self.world.now_s + seconds
        self.monitor.set_start(self._up_at_s + self._offset_s)

    def _fail(self, connection: SimulatedConnection | None, why: str) -> NoReturn:
        """The call fails, because its connection is cut."""
        if connection is not None:
            self._cut([connection])
            connection.hear()
        raise psycopg.OperationalError(why)

    def _cut(self, connections: list[SimulatedConnection]) -> None:
        """The server's side of connections goes; the client finds out when it reads."""
        living = [one for one in connections if not one.closed]
        if living:
            self.monitor.terminate([one.info.backend_pid for one in living])
        for one in living:
            one.is_cut = True

    def _send_late(
        self, connection: SimulatedConnection, gen: PQGen[Any], *, is_commit: bool
    ) -> None:
        """The call is under way without its caller, who believes it lost."""
        connection.is_given_up = True
        self._of(connection.actor).discard(connection)

        def arrive(ghost: Actor) -> None:
            ghost.on_death.append(connection.vanish)
            self.world.sleep(self.world.random.random() * LATEST_S)
            try:
                if self.world.now_s >= self._up_at_s:
                    self.monitor.set_clock(self.world.now_s + self._offset_s)
                    if is_commit:
                        connection.pgconn.exec_(b"COMMIT")
                    else:
                        connection.drive(gen)
                    self._on_commit()
            except psycopg.Error:  # it has no caller any more
                pass
            finally:
                gen.close()
                connection.vanish()

        connection.actor = self.world.add(f"late call of {connection.actor.name}", arrive)

    def _of(self, actor: Actor) -> set[SimulatedConnection]:
        group = self._connections.setdefault(actor, set())
        if not group:
            actor.on_death.append(lambda: self._vanish(actor))
        return group

    def _vanish(self, actor: Actor) -> None:
        """The kernel closes what a dead process had open."""
        group = self._connections.pop(actor, set())
        backends = [one.info.backend_pid for one in group if not one.closed]
        for one in group:
            one.pgconn.finish()
        self.monitor.await_gone(backends)
