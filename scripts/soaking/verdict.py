"""Which figures grow for good, and of which process; whether the fleet did its work; the report."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec
from msgspec import Struct
from rich.table import Table

from scripts.harness.screen import Screen
from scripts.soaking.figure import LIMITS, Figure, Observation, Sample
from scripts.soaking.soak import Soak
from scripts.soaking.trend import Point, Trend

WARM_UP_SHARE: Final = 1 / 3
"""Of the soak, at its beginning: programs are loaded and caches filled then."""
STEADY_SHARE: Final = 0.9
"""A process in so many of the samples is judged alone, the others of a role together."""

NEEDED: Final = (
    "completed",
    "failed",
    "lost by reported",
    "ready-for-dispatch",
    "rebuilder: rebuilt",
    "reader: read",
    "caller: called",
)
"""Work that must have been done at all: a fleet that stands still leaks nothing."""

Series = Mapping[Figure, Sequence[Point]]


class Judged(Struct, frozen=True, kw_only=True):
    """One figure of one process, of all that come and go in one role, or of the server."""

    name: str
    figure: Figure
    trend: Trend

    @property
    def is_growing(self) -> bool:
        """For good."""
        return self.trend.exceeds(LIMITS[self.figure])

    @property
    def text(self) -> str:
        """For a person who has to find the cause."""
        trend = self.trend
        limit = LIMITS[self.figure]
        return (
            f"{self.name}: {self.figure} grew from {trend.first:,.1f} to {trend.last:,.1f} "
            f"(medians), {trend.slope_per_hour:+,.1f} an hour over {trend.length_s:,.0f} s; "
            f"allowed are {limit.per_hour:,.0f} an hour or {limit.allowed(trend.first):,.1f} in all"
        )


def judged(samples: Sequence[Sample]) -> list[Judged]:
    """Everything that was seen long enough after the warm-up."""
    begin_s = samples[-1].at_s * WARM_UP_SHARE if samples else 0.0
    seen = [it for it in samples if it.at_s >= begin_s]
    return [
        Judged(name=name, figure=figure, trend=trend)
        for name, series in _subjects(seen)
        for figure, points in series.items()
        if (trend := Trend.of(points)) is not None
    ]


def idle(done: Mapping[str, int]) -> list[str]:
    """Sentences on work that was not done."""
    return [f"nothing was {what}" for what in NEEDED if not done.get(what)]


def _subjects(samples: Sequence[Sample]) -> Iterator[tuple[str, Series]]:
    lives: dict[str, list[tuple[float, Observation]]] = defaultdict(list)
    for sample in samples:
        for one in sample.observations:
            lives[one.life].append((sample.at_s, one))
    passing: dict[str, list[tuple[float, Observation]]] = defaultdict(list)
    for life in lives.values():
        _, first = life[0]
        if len(life) >= STEADY_SHARE * len(samples):
            yield first.name, _series(life)
        else:
            passing[first.role] += life
    for role, seen in passing.items():
        yield f"{role}, one after another", _series(seen)


def _series(seen: Sequence[tuple[float, Observation]]) -> Series:
    """At each time the median of those who were there."""
    values: dict[Figure, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for at_s, one in seen:
        for figure, value in one.figures.items():
            values[figure][at_s].append(value)
    return {
        figure: [Point(at_s, median(found)) for at_s, found in sorted(by_time.items())]
        for figure, by_time in values.items()
    }


def conclude(
    screen: Screen, minutes: float, soaked: Soak, found: Sequence[Judged], wrongs: Sequence[str]
) -> dict[str, Any]:
    """Show a table of all trends and what is wrong; return the same as figures."""
    growing = [it for it in found if it.is_growing]
    screen.console.print(_table(found))
    screen.say("done: " + ", ".join(f"{count:,} {what}" for what, count in soaked.done.items()))
    for wrong in wrongs:
        screen.say(f"WRONG: {wrong}")
    for one in growing:
        screen.say(f"GROWS: {one.text}")
    if not wrongs and not growing:
        screen.say(
            f"nothing grows: {len(found)} figures of {len({it.name for it in found})}, "
            f"in {len(soaked.samples)} samples"
        )
    return {
        "case": "soak",
        "minutes": minutes,
        "samples": len(soaked.samples),
        "done": soaked.done,
        "judged": [{**msgspec.to_builtins(it), "is_growing": it.is_growing} for it in found],
        "growing": [{"name": it.name, "figure": it.figure, "text": it.text} for it in growing],
        "wrongs": list(wrongs),
    }


def _table(found: Sequence[Judged]) -> Table:
    """A line for each figure of each process; constant ones are left out."""
    table = Table(box=None, pad_edge=False)
    for title in ("who", "what"):
        table.add_column(title)
    for title in ("first", "last", "an hour", "rise", "allowed"):
        table.add_column(title, justify="right")
    for one in sorted(found, key=lambda it: (list(Figure).index(it.figure), it.name)):
        trend = one.trend
        if trend.slope_per_hour == 0 and trend.first == trend.last:
            continue
        table.add_row(
            one.name,
            one.figure,
            f"{trend.first:,.2f}",
            f"{trend.last:,.2f}",
            f"{trend.slope_per_hour:+,.2f}",
            f"{trend.rise:+,.2f}",
            f"{LIMITS[one.figure].allowed(trend.first):,.2f}",
            style="bold red" if one.is_growing else None,
        )
    return table
