"""The arithmetic of measurements: medians of rounds, percentiles, times of calls."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

Line: TypeAlias = dict[str, Any]
BYTES_PER_MB: Final = 1_000_000


class Rounds:
    """Measurements by name, round by round, each of which is reported on standard error."""

    def __init__(self, case: str, unit: str, count: int) -> None:
        self._case = case
        self._unit = unit
        self.count = count
        self._found: dict[str, list[float]] = {}

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            yield number
            newest = ", ".join(f"{name} {found[-1]:,.2f}" for name, found in self._found.items())
            say(self._case, f"round {number + 1} of {self.count}: {newest} {self._unit}")

    def add(self, name: str, *values: float) -> None:
        """Add what was measured in this round."""
        self._found.setdefault(name, []).extend(values)

    def medians(self) -> dict[str, float]:
        """The median of each name."""
        return {name: statistics.median(found) for name, found in self._found.items()}


def percentiles(
    values: Sequence[float], percents: Mapping[str, int], *, digits: int = 2
) -> dict[str, float]:
    """Percentiles by name; 100 is the largest value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {
        name: ordered[min(len(ordered) * percent // 100, last)]
        for name, percent in percents.items()
    }
    return {name: round(value, digits) for name, value in found.items()}


def ms_of(call: Callable[..., object], *arguments: object) -> float:
    """The milliseconds that a call takes."""
    begun = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - begun)


def say(case: str, text: str) -> None:
    """Report progress on standard error; standard output belongs to the lines."""
    sys.stderr.write(f"{case}: {text}\n")
