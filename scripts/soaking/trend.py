"""Whether a series of measurements grows for good.

The slope is that of Theil and Sen: the median of the slopes of all pairs of points. Up to 29 % of
the points may be anything without moving it, and it needs no idea of how the noise is distributed:
garbage collection, a vacuum or a machine that is busy elsewhere make noise far from normal.

One step is no leak: a cache that has filled, an arena that was mapped. A slope cannot distinguish
one from a leak, so growth counts without its largest rise. A leak in steps has more than one.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import median, median_low
from typing import Final, NamedTuple

from msgspec import Struct

MOST_POINTS: Final = 60
"""Of a longer series, medians of so many equal parts are judged: for pairs are many."""
PARTS: Final = 6
"""Between the medians of so many parts of the series, rises are searched for."""
STEADY_SHARE: Final = 0.5
"""Of what may come together, how much has to be left without the largest rise."""
FEWEST_POINTS: Final = 2 * PARTS
HOUR_S: Final = 3_600.0


class Point(NamedTuple):
    """A measurement; `at_s` counts from any moment."""

    at_s: float
    value: float


class Limit(Struct, frozen=True, kw_only=True):
    """How much may come together: `floor`, or `share` of what there was at first if that is more,
    at whatever rate; and `per_hour`, however long it lasts."""

    floor: float
    per_hour: float
    share: float = 0.0

    def allowed(self, first: float) -> float:
        """How much is allowed where there was so much at first."""
        return max(self.floor, self.share * first)


class Trend(Struct, frozen=True, kw_only=True):
    """The trend of a series. `first` and `last` are the medians of its first and last part, `rise`
    is from one to the other without the largest rise between two neighbouring parts."""

    first: float
    last: float
    slope_per_hour: float
    rise: float
    length_s: float

    @classmethod
    def of(cls, series: Sequence[Point]) -> "Trend | None":
        """That of a series in order of time; None where that is too short for one."""
        points = _thinned(series)
        if len(points) < FEWEST_POINTS:
            return None
        levels = [median_low([it.value for it in part]) for part in _parts(points, PARTS)]
        largest = max(after - before for before, after in pairwise(levels))
        return cls(
            first=levels[0],
            last=levels[-1],
            slope_per_hour=HOUR_S * _slope(points),
            rise=levels[-1] - levels[0] - max(largest, 0.0),
            length_s=points[-1].at_s - points[0].at_s,
        )

    def exceeds(self, limit: Limit) -> bool:
        """Whether it grows for good: faster than the limit's rate, by more than may come together,
        and not in one step."""
        drift = self.slope_per_hour * self.length_s / HOUR_S
        allowed = limit.allowed(self.first)
        is_fast = self.slope_per_hour > limit.per_hour
        return is_fast and drift > allowed and self.rise > STEADY_SHARE * allowed


def _thinned(series: Sequence[Point]) -> Sequence[Point]:
    if len(series) <= MOST_POINTS:
        return series
    return [
        Point(median(it.at_s for it in part), median(it.value for it in part))
        for part in _parts(series, MOST_POINTS)
    ]


def _parts(points: Sequence[Point], count: int) -> list[Sequence[Point]]:
    """So many neighbouring parts of about the same length."""
    bounds = [len(points) * no // count for no in range(count + 1)]
    return [points[begin:end] for begin, end in pairwise(bounds)]


def _slope(points: Sequence[Point]) -> float:
    """Of Theil and Sen, per second."""
    return median(
        (after.value - before.value) / (after.at_s - before.at_s)
        for before, after in combinations(points, 2)
        if after.at_s > before.at_s
    )
