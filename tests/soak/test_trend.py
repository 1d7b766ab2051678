"""The trend test: what grows for good is found, and whatever else a figure may do is not."""

import math
import random
from collections.abc import Callable

import pytest

from scripts.soaking.trend import FEWEST_POINTS, HOUR_S, MOST_POINTS, Limit, Point, Trend

EVERY_S = 2.0
COUNT = 300
LENGTH_S = COUNT * EVERY_S
LEVEL = 40.0
LIMIT = Limit(floor=2.0, per_hour=6.0)

Shape = Callable[[float, random.Random], float]
"""A value, by the share of the time that is over."""


def trend_of(shape: Shape, *, seed: int = 0, count: int = COUNT) -> Trend:
    chance = random.Random(seed)
    points = [Point(no * LENGTH_S / count, shape(no / count, chance)) for no in range(count)]
    trend = Trend.of(points)
    assert trend is not None
    return trend


def noise(chance: random.Random) -> float:
    """Mostly small, now and then a spike."""
    return chance.gauss(0, 0.5) + (chance.random() < 0.05) * 20


def flat(_share: float, chance: random.Random) -> float:
    return LEVEL + noise(chance)


def leaking(in_all: float) -> Shape:
    return lambda share, chance: LEVEL + in_all * share + noise(chance)


def stairs(step_count: int, height: float) -> Shape:
    """Up by steps at equal times, the first after one of them."""
    return lambda share, chance: (
        LEVEL + height * math.floor(share * (step_count + 1)) + chance.gauss(0, 0.1)
    )


def sawtooth(periods: float, height: float) -> Shape:
    """Garbage is collected when there is enough of it."""
    return lambda share, _chance: LEVEL + height * (share * periods % 1)


def one_step(at: float) -> Shape:
    return lambda share, chance: LEVEL + 15 * (share >= at) + chance.gauss(0, 0.1)


def falling(share: float, chance: random.Random) -> float:
    return LEVEL - 10 * share + noise(chance)


def vacuumed(share: float, _chance: random.Random) -> float:
    """Growing towards a ceiling, as a cache that fills more and more slowly."""
    return LEVEL + 8 * (1 - math.exp(-12 * share))


@pytest.mark.parametrize("seed", range(50))
def test_noise_around_a_level_is_no_trend(seed: int) -> None:
    assert not trend_of(flat, seed=seed).exceeds(LIMIT)


@pytest.mark.parametrize("seed", range(50))
def test_a_slow_leak_under_noise_is_found(seed: int) -> None:
    trend = trend_of(leaking(4.0), seed=seed)

    assert trend.exceeds(LIMIT)
    assert trend.slope_per_hour == pytest.approx(4.0 * HOUR_S / LENGTH_S, rel=0.1)


@pytest.mark.parametrize("step_count", [3, 5, 11, 60])
def test_a_leak_that_comes_in_steps_is_found(step_count: int) -> None:
    assert trend_of(stairs(step_count, 12.0 / step_count)).exceeds(LIMIT)


@pytest.mark.parametrize("periods", [3.0, 3.5, 7.3, 20.0, 99.9])
def test_a_sawtooth_is_no_trend(periods: float) -> None:
    assert not trend_of(sawtooth(periods, 10.0)).exceeds(LIMIT)


@pytest.mark.parametrize("at", [no / 24 for no in range(25)])
def test_one_step_is_no_trend_wherever_it_is(at: float) -> None:
    assert not trend_of(one_step(at)).exceeds(LIMIT)


@pytest.mark.parametrize("shape", [falling, vacuumed])
def test_what_falls_or_levels_off_is_no_trend(shape: Shape) -> None:
    assert not trend_of(shape).exceeds(LIMIT)


def test_a_leak_below_a_sawtooth_is_found() -> None:
    teeth = sawtooth(20.0, 10.0)

    trend = trend_of(lambda share, chance: teeth(share, chance) + 12 * share)

    assert trend.exceeds(LIMIT)


def test_counts_that_grow_one_by_one_are_found_and_a_few_more_are_not() -> None:
    limit = Limit(floor=3, per_hour=6)

    def files(more: int) -> Shape:
        return lambda share, _chance: 20.0 + math.floor(share * (more + 0.999))

    assert trend_of(files(10)).exceeds(limit)
    assert not trend_of(files(2)).exceeds(limit)


def test_a_rate_below_the_limit_is_allowed_however_much_comes_together() -> None:
    trend = trend_of(leaking(4.0))

    assert not trend.exceeds(Limit(floor=2.0, per_hour=30.0))


def test_what_may_come_together_is_a_share_of_much() -> None:
    limit = Limit(floor=2.0, share=0.5, per_hour=6.0)

    assert not trend_of(leaking(12.0)).exceeds(limit)
    assert trend_of(leaking(40.0)).exceeds(limit)


def test_the_largest_rise_alone_does_not_count() -> None:
    trend = trend_of(one_step(0.5))

    assert trend.last - trend.first == pytest.approx(15, abs=0.5)
    assert abs(trend.rise) < 0.5


def test_a_short_series_is_not_judged() -> None:
    points = [Point(float(no), float(no)) for no in range(FEWEST_POINTS)]

    assert Trend.of(points[:-1]) is None
    assert Trend.of([]) is None
    assert Trend.of(points) is not None


def test_a_long_series_is_judged_by_medians_of_its_parts() -> None:
    exact = trend_of(lambda share, _chance: 60 * share, count=MOST_POINTS)
    thinned = trend_of(lambda share, _chance: 60 * share, count=100 * MOST_POINTS)

    assert thinned.slope_per_hour == pytest.approx(exact.slope_per_hour)
