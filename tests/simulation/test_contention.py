"""The order of waiting and of continuing in the server is the scheduler's: it never
depends on how fast the server is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from recovery_journal.domain.errors import RecoveryJournalError
from scripts.simulation.connection import SimulatedDatabase
from scripts.simulation.faults import GivenFaults
from scripts.simulation.network import Network
from scripts.simulation.server import Monitor, fresh_database
from scripts.simulation.world import Actor, World

SEATS = """
CREATE TABLE seats (seat integer PRIMARY KEY, taken_by text);
INSERT INTO seats VALUES (1, ''), (2, '');
"""
TAKE = "INSERT INTO seats VALUES (%s, %s) ON CONFLICT DO NOTHING"
MARK = "UPDATE seats SET taken_by = %s WHERE seat = %s"

TIMES = 12
"""How often each is tried, for what happens at random may happen the same way a few times."""


class ChangeOfMind(Exception):
    """Somebody takes back what he began."""


class Stage:
    """A world with a table of seats, and what its actors say."""

    def __init__(self, dsn: str, monitor: Monitor) -> None:
        self.world = World(0)
        self.said: list[str] = []
        self._dsn = dsn
        self._network = Network(
            self.world,
            monitor,
            GivenFaults({}),
            on_commit=lambda: None,
            on_damage=lambda _severity: None,
            on_clock=lambda: None,
        )

    def enter(self, name: str, act: Callable[[SimulatedDatabase], None], *, after_s: float) -> None:
        """Let somebody with a database of his own act once, and say what he met."""

        def live(_actor: Actor) -> None:
            self.world.sleep(after_s)
            try:
                act(SimulatedDatabase(self._dsn, self._network))
            except (ChangeOfMind, RecoveryJournalError, psycopg.Error) as error:
                self.said.append(f"{name}: {type(error).__name__}")
            self.world.sleep(1_000)

        self.world.add(name, live)

    def take(self, name: str, seat: int) -> Callable[[SimulatedDatabase], None]:
        """Take a seat, unless it is taken."""

        def act(database: SimulatedDatabase) -> None:
            with database.transaction() as own:
                is_taken = own.execute(TAKE, [seat, name]).rowcount == 1
            self.said.append(f"{name}: {'has it' if is_taken else 'came late'}")

        return act

    def give_up(self, name: str, seat: int) -> Callable[[SimulatedDatabase], None]:
        """Take a seat, and take it back."""

        def act(database: SimulatedDatabase) -> None:
            with database.transaction() as own:
                own.execute(TAKE, [seat, name])
                self.world.sleep(2)
                raise ChangeOfMind

        return act

    def mark(self, name: str, *seats: int) -> Callable[[SimulatedDatabase], None]:
        """Mark seats in this order, one a second."""

        def act(database: SimulatedDatabase) -> None:
            with database.transaction() as own:
                for seat in seats:
                    own.execute(MARK, [name, seat])
                    self.world.sleep(1)
            self.said.append(f"{name}: done")

        return act

    def end_all_sessions(self) -> None:
        """As a restart of the server does."""
        self._network._restart(0)


@contextmanager
def stage(dsn: str) -> Iterator[Stage]:
    """A stage with a database of its own."""
    with fresh_database(dsn) as database_dsn:
        monitor = Monitor(database_dsn)
        made = Stage(database_dsn, monitor)
        try:
            monitor.connection.execute(SEATS)
            yield made
        finally:
            made.world.end()
            monitor.close()


def test_of_many_who_are_let_in_at_the_same_moment_the_same_one_is_first(
    simulation_dsn: str,
) -> None:
    heard = set()
    for _ in range(TIMES):
        with stage(simulation_dsn) as made:
            made.enter("first", made.give_up("first", 3), after_s=0)
            for name in "abcd":
                made.enter(name, made.take(name, 3), after_s=1)
            made.world.run(10)
            heard.add(tuple(made.said))
    assert len(heard) == 1
    first, *others = heard.pop()
    assert first == "first: ChangeOfMind"
    assert sum(said.endswith("has it") for said in others) == 1
    assert len(others) == 4


def test_of_two_who_would_wait_for_each_other_for_ever_the_last_to_wait_loses(
    simulation_dsn: str,
) -> None:
    for _ in range(TIMES):
        with stage(simulation_dsn) as made:
            made.enter("early", made.mark("early", 1, 2), after_s=0)
            made.enter("late", made.mark("late", 2, 1), after_s=0.5)
            made.world.run(10)
            assert made.said == ["late: StoreBusy", "early: done"]


def test_who_waits_for_a_lock_never_gets_it_from_a_session_that_ends_with_its_own(
    simulation_dsn: str,
) -> None:
    for _ in range(TIMES):
        with stage(simulation_dsn) as made:
            made.enter("holder", made.mark("holder", 1, 2), after_s=0)
            made.enter("waiter", made.mark("waiter", 1), after_s=0.5)
            made.world.later(0.8, made.end_all_sessions)
            made.world.run(10)
            assert sorted(made.said) == ["holder: ServerUnavailable", "waiter: ServerUnavailable"]
