"""The figures of a soak test, for people and programs."""

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.table import Table

from scripts.harness.screen import Screen
from scripts.soaking.figure import LIMITS, Figure
from scripts.soaking.soak import Soaked
from scripts.soaking.verdict import Judged


def conclude(
    screen: Screen,
    minutes: float,
    soaked: Soaked,
    found: Sequence[Judged],
    wrongs: Sequence[str],
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
