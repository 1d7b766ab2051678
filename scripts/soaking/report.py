"""What a person sees of a soak, and a program by `--json`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec
from rich.table import Table

from scripts.soaking.figure import LIMITS, Figure
from scripts.soaking.soak import Soaked
from scripts.soaking.verdict import Judged
from scripts.storming.screen import Screen

NARROWEST: Final = 140


class Report:
    """Tells of a soak while it goes on, and what came of it."""

    def __init__(self, *, is_json: bool) -> None:
        self._screen = Screen(is_json=is_json)
        self.say = self._screen.say

    def bar(self, total_s: float) -> AbstractContextManager[Any]:
        """Progress, to be told how long it has gone on and what there is to see."""
        return self._screen.bar(total_s, "soak")

    def conclude(
        self, minutes: float, soaked: Soaked, found: Sequence[Judged], wrongs: Sequence[str]
    ) -> None:
        """A table of all that was looked at, and what is wrong."""
        growing = [it for it in found if it.is_growing]
        self._screen.show_json(_figures(minutes, soaked, found, wrongs))
        if not self._screen.console.is_terminal:
            self._screen.console.width = NARROWEST
        self._screen.console.print(_table(found))
        self.say("done: " + ", ".join(f"{count:,} {what}" for what, count in soaked.done.items()))
        for wrong in wrongs:
            self.say(f"WRONG: {wrong}")
        for one in growing:
            self.say(f"GROWS: {one.text}")
        if not wrongs and not growing:
            self.say(
                f"nothing grows: {len(found)} figures of {len({it.name for it in found})}, "
                f"in {len(soaked.samples)} looks"
            )


def _table(found: Sequence[Judged]) -> Table:
    """A line for each figure of each; what does not move at all is left out."""
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


def _figures(
    minutes: float, soaked: Soaked, found: Sequence[Judged], wrongs: Sequence[str]
) -> dict[str, Any]:
    return {
        "case": "soak",
        "minutes": minutes,
        "looks": len(soaked.samples),
        "done": soaked.done,
        "judged": [{**msgspec.to_builtins(it), "is_growing": it.is_growing} for it in found],
        "growing": [
            {"name": it.name, "figure": it.figure, "text": it.text} for it in found if it.is_growing
        ],
        "wrongs": list(wrongs),
    }
