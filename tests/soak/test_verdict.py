"""Which processes are judged alone and which together, and the report of those that grow."""

from collections.abc import Callable

from scripts.soaking.figure import LIMITS, Figure, Observation, Sample
from scripts.soaking.verdict import NEEDED, idle, judged

COUNT = 90


def seen(role: str, name: str, life: str, **figures: float) -> Observation:
    return Observation(
        role=role,
        name=name,
        life=life,
        figures={Figure[figure.upper()]: value for figure, value in figures.items()},
    )


def samples(observe: Callable[[int], list[Observation]]) -> list[Sample]:
    return [Sample(at_s=10.0 * no, observations=tuple(observe(no))) for no in range(COUNT)]


def growing(observe: Callable[[int], list[Observation]]) -> list[tuple[str, Figure]]:
    return [(it.name, it.figure) for it in judged(samples(observe)) if it.is_growing]


def test_every_figure_has_a_limit() -> None:
    assert set(LIMITS) == set(Figure)


def test_a_process_that_grows_is_named_with_the_figure_and_its_medians() -> None:
    def observe(no: int) -> list[Observation]:
        return [
            seen("follower", "follower-1", "1", memory=40.0 + no / 10, files=9),
            seen("follower", "follower-2", "2", memory=40.0, files=9),
        ]

    [found] = [it for it in judged(samples(observe)) if it.is_growing]

    assert (found.name, found.figure) == ("follower-1", Figure.MEMORY)
    assert found.text == (
        "follower-1: memory, MB grew from 43.4 to 48.4 (medians), +36.0 an hour over 590 s; "
        "allowed are 6 an hour or 2.0 in all"
    )


def test_what_grows_in_the_warm_up_alone_is_no_leak() -> None:
    assert not growing(lambda no: [seen("reader", "r-1", "1", memory=min(no, 29) * 2.0)])


def test_processes_that_come_and_go_are_judged_together_with_their_successors() -> None:
    def observe(no: int) -> list[Observation]:
        """Each lives for three looks and is born larger than the one before; one stays."""
        return [
            seen("worker", f"worker-{no // 3}", str(no // 3), memory=40.0 + no // 3),
            seen("worker", "worker-0", "stays", memory=40.0),
        ]

    assert growing(observe) == [("worker, one after another", Figure.MEMORY)]


def test_one_that_is_small_when_it_is_young_is_no_leak() -> None:
    assert not growing(lambda no: [seen("worker", "w", str(no // 5), memory=40.0 + no % 5)])


def test_files_threads_children_and_connections_are_checked_as_well() -> None:
    for figure in ("files", "threads", "children", "connections", "advisory_locks"):
        found = growing(lambda no: [seen("caller", "c-1", "1", **{figure: 5 + no // 6})])  # noqa: B023 - called at once

        assert found == [("c-1", Figure[figure.upper()])]


def test_without_a_sample_there_is_nothing_to_judge() -> None:
    assert judged([]) == []


def test_work_that_was_not_done_is_reported() -> None:
    done = dict.fromkeys(NEEDED, 1)

    assert idle(done) == []
    assert idle({**done, "completed": 0}) == ["nothing was completed"]
    assert len(idle({})) == len(NEEDED)
