"""A connection to the real server, whose every exchange is a turn of the scheduler."""

import select
from contextlib import suppress
from inspect import getgeneratorlocals
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import Connection
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row

from recovery_journal.postgres.database import LOCK_S
from scripts.simulation.server import ClockedDatabase
from scripts.simulation.world import Actor

if TYPE_CHECKING:
    from scripts.simulation.network import Network

LOOK_S: Final = 0.003
"""Real seconds of silence after which it is asked whether a lock is in the way."""
SETTLING_S: Final = 0.0002
READABLE, WRITABLE = 1, 2
"""psycopg's states of waiting, and of being ready."""

LEAVE: Final = "BaseTransaction._exit_gen"
EXECUTE: Final = "BaseCursor._execute_gen"
COPY: Final = "copy_to"
"""psycopg's names of exchanges: the end of a transaction, one statement, some data of a COPY."""


class SimulatedDatabase(ClockedDatabase):
    """The product's database over a network."""

    def __init__(self, dsn: str, network: "Network") -> None:
        super().__init__(dsn)
        self._network = network

    def _connect(self, **options: Any) -> Connection[DictRow]:
        def connect() -> SimulatedConnection:
            return SimulatedConnection.connect(
                "", autocommit=True, row_factory=dict_row, **{**self._options, **options}
            )

        return self._network.open(connect)


class SimulatedConnection(Connection[DictRow]):
    """One actor's connection. Until it has a network, and outside of all actors, it is psycopg's.

    `is_given_up` says that a call is still under way whose caller believes the connection cut, and
    `is_cut` that the server has ended the session, whether or not the caller has noticed.
    """

    network: "Network | None" = None
    actor: Actor
    is_given_up = False
    is_cut = False
    _blocked_since_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether it is of no more use, as far as the client knows."""
        return self.is_given_up or super().closed

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, be it failed or not."""
        status = self.pgconn.transaction_status
        return status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's
        """One exchange with the server: everything that psycopg sends and reads goes this way."""
        network = self.network
        if network is None or network.world.current is None:
            return super().wait(gen, *arguments, **options)
        return network.call(self, gen)

    def drive(self, gen: PQGen[Any]) -> Any:  # noqa: ANN401 - whatever the exchange answers
        """Exchange what is to be exchanged; give way where another's lock is in the way."""
        assert self.network is not None
        if self.is_cut and self.pgconn.pipeline_status != PipelineStatus.OFF:
            self.hear()  # else what is only sent now would fail or not, as the kernel is fast
        try:
            state = next(gen)
            while True:
                ready = self._ready(state, LOOK_S)
                if ready:
                    state = gen.send(ready)
                elif self._is_blocked():
                    self._give_way()
        except StopIteration as end:
            return end.value
        finally:
            with suppress(psycopg.Error):  # its last messages have no reader
                gen.close()

    def is_still_blocked(self) -> bool:
        """Whether the server still lets it wait; certain when it returns."""
        assert self.network is not None
        monitor, backend_id = self.network.monitor, self.info.backend_pid
        if self.network.world.now_s - self._blocked_since_s > LOCK_S:
            self._cancel()
        elif monitor.is_blocked(backend_id):
            return True
        monitor.let_go(backend_id)
        while not self._ready(READABLE, SETTLING_S):
            if self._is_blocked():
                monitor.hold(backend_id)
                return True
        return False

    def decides(self, gen: PQGen[Any]) -> bool:
        """Whether this exchange commits something: a transaction, or a statement by itself."""
        if name_of(gen) == LEAVE:
            is_commit = _given(gen, "exc_type") is None
            return is_commit and self._num_transactions == 1  # else it leaves a savepoint
        return name_of(gen) == EXECUTE and not self.is_in_transaction

    def may_write(self, gen: PQGen[Any]) -> bool:
        """Whether something may be different in the server once this exchange is over."""
        if self.is_in_transaction:
            return True
        if name_of(gen) != EXECUTE:
            return False
        query = _given(gen, "query")
        text = query.decode() if isinstance(query, bytes) else str(query)
        return not text.lstrip().startswith("SELECT")

    def hear(self) -> None:
        """Read that the other side is gone: its last words, and then its end."""
        while self.pgconn.status == ConnStatus.OK:
            try:
                self.pgconn.consume_input()
            except psycopg.Error:
                return

    def vanish(self) -> None:
        """Close without a word, and wait until the server has noticed."""
        assert self.network is not None
        if self.pgconn.status == ConnStatus.OK:
            backend_id = self.info.backend_pid
            self.pgconn.finish()
            self.network.monitor.await_gone([backend_id])

    def close(self) -> None:
        """Close, unless a call is still under way without its caller; then nothing is left of it in
        the server, for what others see must not depend on how fast it is."""
        if self.is_given_up:
            return
        is_open = self.network is not None and self.pgconn.status == ConnStatus.OK
        backend_id = self.info.backend_pid if is_open else 0
        super().close()
        if self.network is not None and is_open:
            self.network.monitor.await_gone([backend_id])

    def _is_blocked(self) -> bool:
        """Whether its call waits for a lock that somebody will give back: the last one of those who
        would wait for each other for ever loses."""
        assert self.network is not None
        monitor, backend_id = self.network.monitor, self.info.backend_pid
        if not monitor.is_blocked(backend_id):
            return False
        if monitor.is_deadlocked(backend_id):
            self._cancel()
            return False
        return True

    def _cancel(self) -> None:
        """End its call, as a limit of its session would; returns once the server has answered."""
        assert self.network is not None
        self.network.monitor.cancel(self.info.backend_pid)
        while not self._ready(READABLE, LOOK_S):
            pass

    def _give_way(self) -> None:
        assert self.network is not None
        world = self.network.world
        self._blocked_since_s = world.now_s
        self.network.monitor.hold(self.info.backend_pid)
        world.later(LOCK_S + 0.001, lambda: None)  # so that its limit is checked in time
        world.wait_for(self)

    def _ready(self, state: int, limit_s: float) -> int:
        file = self.pgconn.socket
        reading, writing, _ = select.select(
            [file] if state & READABLE else [], [file] if state & WRITABLE else [], [], limit_s
        )
        return (READABLE if reading else 0) | (WRITABLE if writing else 0)


def _given(gen: PQGen[Any], name: str) -> object:
    """An argument of an exchange that has not begun."""
    assert isinstance(gen, GeneratorType)
    return getgeneratorlocals(gen)[name]


def name_of(gen: PQGen[Any]) -> str:
    """The name that psycopg gives to an exchange."""
    return str(getattr(gen, "__qualname__", ""))
