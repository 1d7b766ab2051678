"""The scheduler: one actor at a time, time only where everybody waits, and a crash that is one."""

import pytest

from scripts.simulation.world import Actor, Crash, Violation, World


def report(world: World, said: list[str], *, steps: int = 5) -> None:
    """Three actors who say what they do."""

    def live(actor: Actor) -> None:
        for step in range(steps):
            said.append(f"{actor} {step}")
            world.sleep(0)

    for name in ("a", "b", "c"):
        world.add(name, live)


def test_the_same_seed_lets_the_actors_act_in_the_same_order() -> None:
    orders = []
    for seed in (1, 1, 2):
        world, said = World(seed), list[str]()
        report(world, said)
        world.run(1.0)
        orders.append(said)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_where_everybody_sleeps_time_leaps_to_the_first_who_wakes() -> None:
    world, woke = World(0), list[tuple[str, float]]()

    def live(actor: Actor) -> None:
        world.sleep(60 if actor.name == "late" else 20)
        woke.append((actor.name, round(world.now_s)))

    world.add("late", live)
    world.add("early", live)
    world.run(100)
    assert woke == [("early", 20), ("late", 60)]
    assert world.now_s == 100


def test_who_dies_ends_at_once_lets_go_of_what_he_had_and_lives_again() -> None:
    world, said = World(0), list[str]()

    def live(actor: Actor) -> None:
        actor.on_death.append(lambda: said.append("let go"))
        said.append(repr(actor))
        world.sleep(0)
        if actor.life_no == 1:
            world.die()
        said.append("done")

    world.add("worker", live)
    world.run(10)
    assert said == ["worker/1", "let go", "worker/2", "done"]


def test_what_an_actor_raises_reaches_the_caller_of_run() -> None:
    world = World(0)

    def live(_actor: Actor) -> None:
        raise Violation("promised otherwise")

    world.add("worker", live)
    with pytest.raises(Violation, match="promised otherwise"):
        world.run(1)


def test_at_the_end_everybody_is_killed_where_he_stands() -> None:
    world, ends = World(0), list[str]()

    def live(actor: Actor) -> None:
        try:
            world.sleep(1_000)
        except Crash:
            ends.append(actor.name)
            raise

    world.add("a", live)
    world.add("b", live)
    world.run(1)
    world.end()
    assert sorted(ends) == ["a", "b"]
    assert not world.actors


def test_what_is_due_later_happens_in_its_order() -> None:
    world, said = World(0), list[str]()
    world.later(3, lambda: said.append("third"))
    world.later(1, lambda: said.append("first"))
    world.later(2, lambda: said.append("second"))
    world.add("sleeper", lambda _actor: world.sleep(10))
    world.run(20)
    assert said == ["first", "second", "third"]
