"""A scheduler and a clock: many actors in one process, of which one at a time does one thing.

An actor is ordinary code of the product in a greenlet. It gives way wherever it calls the server
or sleeps; a seeded draw says which continues. Time passes only here: a little with each call, and
in one leap where all actors sleep.
"""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Final, Protocol

from greenlet import getcurrent, greenlet

LONGEST_CALL_S: Final = 0.004


class Crash(BaseException):
    """A process dies here. Not an Exception: nothing of the product's may catch it."""


class Violation(Exception):
    """A promise was broken."""


class Blocked(Protocol):
    """A lock of another actor, for which an actor waits in the server."""

    def is_still_blocked(self) -> bool:
        """Whether it still waits; returns only once that is certain."""


class Actor:
    """One process: it lives, may die at any call, and is started again after a while."""

    def __init__(self, name: str, live: Callable[["Actor"], None]) -> None:
        self.name = name
        self.live = live
        self.life_no = 0
        self.wakes_at = 0.0
        self.waits_for: Blocked | None = None
        self.on_death: list[Callable[[], None]] = []
        self.is_dying = False
        self.is_retired = False
        self.greenlet: greenlet | None = None

    def __repr__(self) -> str:
        return f"{self.name}/{self.life_no}"


class World:
    """All actors of one run, its clock in seconds from 0, and the seeded draws."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"schedule {seed}")
        self.now_s = 0.0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self._hub = getcurrent()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def add(self, name: str, live: Callable[[Actor], None]) -> Actor:
        """A new actor, who begins when it is drawn."""
        actor = Actor(name, live)
        self.actors.append(actor)
        self._start(actor)
        return actor

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        """Do something at the first change of actors after so many seconds."""
        heapq.heappush(self._later, (self.now_s + after_s, next(self._numbers), act))

    def sleep(self, seconds: float) -> None:
        """Give way until so much time has passed; at once where no actor asks."""
        actor = self.current
        if actor is None:
            self.now_s += seconds
            return
        actor.wakes_at = self.now_s + seconds
        self._hub.switch()

    def wait_for(self, blocked: Blocked) -> None:
        """Give way until the server lets the current actor's call continue."""
        assert self.current is not None
        self.current.waits_for = blocked
        self._hub.switch()

    def die(self) -> None:
        """The current actor's process ends here."""
        assert self.current is not None
        self.current.is_dying = True
        for end in self.current.on_death:
            end()
        raise Crash

    def run(self, until_s: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let the actors act until a time, or until a question is answered with yes."""
        while self.now_s < until_s and not is_over():
            self._do_what_is_due()
            ready = [one for one in self.actors if not one.waits_for and one.wakes_at <= self.now_s]
            if not ready:
                self._leap(until_s)
                continue
            self._switch_to(self.random.choice(ready))
            self._settle()
            self.now_s += self.random.random() * LONGEST_CALL_S

    def end(self) -> None:
        """End all actors, as if their processes were killed."""
        for actor in list(self.actors):
            actor.is_dying = True
            for end in actor.on_death:
                end()
            if actor.greenlet:  # begun, and not at its end
                self.current = actor
                actor.greenlet.throw(Crash)
                self.current = None
        self.actors.clear()

    def _start(self, actor: Actor) -> None:
        actor.life_no += 1
        actor.is_dying = False
        actor.waits_for = None
        actor.on_death = []
        actor.greenlet = greenlet(lambda: self._live(actor), parent=self._hub)

    def _live(self, actor: Actor) -> None:
        try:
            actor.live(actor)
            actor.is_retired = True
        except Crash:
            pass

    def _switch_to(self, actor: Actor) -> None:
        assert actor.greenlet is not None
        self.current = actor
        actor.greenlet.switch()
        self.current = None
        if not actor.greenlet.dead:
            return
        if actor.is_retired:
            self.actors.remove(actor)
            return
        self._start(actor)
        actor.wakes_at = self.now_s + self.random.random() * 3

    def _do_what_is_due(self) -> None:
        while self._later and self._later[0][0] <= self.now_s:
            _, _, act = heapq.heappop(self._later)
            act()
            self._settle()

    def _settle(self) -> None:
        """Let every call that is no longer blocked finish, before another actor acts: so
        what happens never depends on how fast the server is."""
        for actor in self.actors:
            if actor.waits_for is not None and not actor.waits_for.is_still_blocked():
                actor.waits_for = None
                actor.wakes_at = self.now_s

    def _leap(self, until_s: float) -> None:
        times = [one.wakes_at for one in self.actors if not one.waits_for]
        times += [self._later[0][0]] if self._later else []
        self.now_s = max(self.now_s, min([*times, until_s]))


class VirtualTime:
    """Stands for the module `time` in the product's modules."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        """Seconds since the run began."""
        return self._world.now_s

    def sleep(self, seconds: float) -> None:
        """Give way."""
        self._world.sleep(seconds)
