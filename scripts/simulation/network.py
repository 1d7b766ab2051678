"""The wire between an actor and the server: each call is a turn of the scheduler, and may fail."""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, Self

import psycopg
from psycopg import Connection
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import Row

from recovery_journal.postgres import database as product
from scripts.simulation.faults import Fault, FaultKind, Faults, GivenFaults
from scripts.simulation.server import Monitor
from scripts.simulation.world import Actor, World

LOOK_S: Final = 0.003
READABLE, WRITABLE = 1, 2
"""psycopg's states of waiting, and of being ready."""

LONGEST_PAUSE_S: Final = 15.0
LONGEST_OUTAGE_S: Final = 12.0
LATEST_S: Final = 9.0
FARTHEST_S: Final = 20.0

LEAVE: Final = "BaseTransaction._exit_gen"
EXECUTE: Final = "BaseCursor._execute_gen"
"""Names that psycopg gives to exchanges: the end of a transaction, and one statement."""

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
    ) -> None:
        self.world = world
        self.monitor = monitor
        self.faults: Faults = faults
        self.met: dict[int, Fault] = {}
        self.call_no = 0
        self.trace: list[tuple[str, str]] = []
        self._on_commit = on_commit
        self._on_damage = on_damage
        self._offset_s = 0.0
        self._up_at_s = 0.0
        self._connections: dict[Actor, set[SimulatedConnection[Any]]] = {}

    def calm(self) -> None:
        """No more faults from now on."""
        self.faults = GivenFaults({})

    def open(self, connect: Callable[[], "SimulatedConnection[Row]"]) -> "SimulatedConnection[Row]":
        """Connect the current actor, if it and the server are there."""
        actor = self.world.current
        assert actor is not None
        self._turn(actor, None, "connect")
        connection = connect()
        connection.actor = actor
        self._of(actor).add(connection)
        return connection

    def call(self, connection: "SimulatedConnection[Any]", gen: PQGen[Any]) -> Any:
        """One exchange with the server: before it others may act, and something may go wrong."""
        actor = connection.actor
        if actor.is_dying:
            gen.close()
            self.world.die()
        if connection.is_given_up:
            gen.close()
            raise psycopg.OperationalError(SILENT)
        kind = gen.__qualname__
        try:
            fault = self._turn(actor, connection, kind)
        except BaseException:
            gen.close()
            raise
        was_open = connection.is_in_transaction
        may_write = was_open or (kind == EXECUTE and not _is_question(gen))
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
        self, actor: Actor, connection: "SimulatedConnection[Any] | None", kind: str
    ) -> FaultKind | None:
        """Give way, then suffer what happens before the call; what is to happen after it."""
        self.world.sleep(0)
        if actor.is_dying:
            self.world.die()
        self.call_no += 1
        self.trace.append((repr(actor), kind))
        fault = self.faults.at(self.call_no)
        if fault is not None and (actor.is_mortal or fault.kind in (FaultKind.CLOCK,)):
            self.met[self.call_no] = fault
            self._befall(actor, connection, fault)
        else:
            fault = None
        if self.world.now_s < self._up_at_s:
            self._fail(connection, "simulated: the server is away")
        self.monitor.set_clock(self.world.now_s + self._offset_s)
        return None if fault is None else fault.kind

    def _befall(
        self, actor: Actor, connection: "SimulatedConnection[Any] | None", fault: Fault
    ) -> None:
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
            case FaultKind.DAMAGE:
                self._on_damage(fault.severity)

    def _pause(self, connection: "SimulatedConnection[Any] | None", seconds: float) -> None:
        """The server ends a session that is idle in a transaction for too long."""
        if connection is not None:
            limit_s = product.IDLE_IN_TRANSACTION_S
            if connection.is_in_transaction and seconds > limit_s:
                self.world.later(limit_s, lambda: self._cut([connection]))
        self.world.sleep(seconds)

    def _restart(self, seconds: float) -> None:
        """All sessions end now; nobody connects for a while, and then the server is a new one."""
        self._cut([one for group in self._connections.values() for one in group])
        self._up_at_s = self.world.now_s + seconds
        self.monitor.set_start(self._up_at_s + self._offset_s)

    def _fail(self, connection: "SimulatedConnection[Any] | None", why: str) -> NoReturn:
        """The call fails, because its connection is cut."""
        if connection is not None:
            self._cut([connection])
            connection.hear()
        raise psycopg.OperationalError(why)

    def _cut(self, connections: "list[SimulatedConnection[Any]]") -> None:
        """The server's side of connections goes; the client finds out when it reads."""
        living = [one for one in connections if not one.closed]
        if living:
            self.monitor.terminate([one.info.backend_pid for one in living])

    def _send_late(
        self, connection: "SimulatedConnection[Any]", gen: PQGen[Any], *, is_commit: bool
    ) -> None:
        """The call goes on its way in the name of nobody, and the caller believes it lost."""
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
            except psycopg.Error:  # nobody is there to hear of it
                pass
            finally:
                gen.close()
                connection.vanish()

        connection.actor = self.world.add(f"late call of {connection.actor.name}", arrive, is_mortal=False)

    def _of(self, actor: Actor) -> "set[SimulatedConnection[Any]]":
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


class SimulatedConnection(Connection[Row]):
    """A connection to the real server, whose every exchange goes through the network."""

    network: Network | None = None
    actor: Actor
    is_given_up = False
    _blocked_since_s = 0.0

    @classmethod
    def connect(cls, *arguments: Any, **options: Any) -> Self:
        """Connect, as the network lets us."""
        if cls.network is None or cls.network.world.current is None:
            return super().connect(*arguments, **options)
        made: Any = cls.network.open(lambda: super(SimulatedConnection, cls).connect(*arguments, **options))
        return made  # type: ignore[no-any-return]

    @property
    def closed(self) -> bool:
        """Whether it is of no more use, as far as the client knows."""
        return self.is_given_up or super().closed

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:
        """One exchange with the server."""
        network = self.network
        if network is None or network.world.current is None:
            return super().wait(gen, *arguments, **options)
        return network.call(self, gen)

    def drive(self, gen: PQGen[Any]) -> Any:
        """Exchange what is to be exchanged; give way where another's lock is in the way."""
        assert self.network is not None
        try:
            state = next(gen)
            while True:
                ready = self._ready(state)
                if ready:
                    state = gen.send(ready)  # type: ignore[arg-type]
                elif self.network.monitor.is_blocked(self.info.backend_pid):
                    self._wait_for_lock()
        except StopIteration as end:
            return end.value
        finally:
            with suppress(psycopg.Error):  # what it still wants to say, nobody hears
                gen.close()

    def is_still_blocked(self) -> bool:
        """Whether the server still lets it wait; certain when it returns."""
        assert self.network is not None
        if self.is_given_up is False and self.network.world.now_s - self._blocked_since_s > product.LOCK_S:
            self.network.monitor.cancel(self.info.backend_pid)
        while not self._ready(READABLE, 0.0002):
            if self.network.monitor.is_blocked(self.info.backend_pid):
                return True
        return False

    def hear(self) -> None:
        """Read that the other side is gone: its last words, and then its end."""
        while self.pgconn.status == ConnStatus.OK:
            try:
                self.pgconn.consume_input()
            except psycopg.Error:
                return

    def decides(self, gen: PQGen[Any]) -> bool:
        """Whether this exchange commits something: a transaction, or a statement by itself."""
        if gen.__qualname__ == LEAVE:
            is_commit = gen.gi_frame.f_locals["exc_type"] is None
            return is_commit and self._num_transactions == 1  # else it leaves a savepoint
        return gen.__qualname__ == EXECUTE and not self.is_in_transaction

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, be it failed or not."""
        status = self.pgconn.transaction_status
        return status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)

    def vanish(self) -> None:
        """Close without a word, and wait until the server has noticed."""
        assert self.network is not None
        if self.pgconn.status == ConnStatus.OK:
            backend_id = self.info.backend_pid
            self.pgconn.finish()
            self.network.monitor.await_gone([backend_id])

    def close(self) -> None:
        """Close, unless a call is still under way in nobody's name."""
        if not self.is_given_up:
            super().close()

    def _wait_for_lock(self) -> None:
        assert self.network is not None
        world = self.network.world
        self._blocked_since_s = world.now_s
        world.later(product.LOCK_S + 0.001, lambda: None)  # so that the limit is looked at
        world.wait_for(self)

    def _ready(self, state: int, limit_s: float = LOOK_S) -> int:
        file = self.pgconn.socket
        reading, writing, _ = select.select(
            [file] if state & READABLE else [], [file] if state & WRITABLE else [], [], limit_s
        )
        return (READABLE if reading else 0) | (WRITABLE if writing else 0)


def _is_question(gen: PQGen[Any]) -> bool:
    """Whether a statement by itself only reads."""
    query = gen.gi_frame.f_locals["query"]
    text = query.decode() if isinstance(query, bytes) else str(query)
    return text.lstrip().startswith("SELECT")


@contextmanager
def wired(network: Network) -> Iterator[None]:
    """Let the product's databases connect through this network."""
    before = product.Connection
    product.Connection = SimulatedConnection  # type: ignore[misc, assignment]
    SimulatedConnection.network = network
    try:
        yield
    finally:
        SimulatedConnection.network = None
        product.Connection = before  # type: ignore[misc]
