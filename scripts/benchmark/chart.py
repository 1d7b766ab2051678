"""Charts of a run, as SVG: the same lines make the same file, byte for byte."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pygal import HorizontalBar, Line
from pygal.style import CleanStyle

# pygal leaves a finder for plugins behind that has the interface of before Python 3.4: every import
# after it that fails would warn of it. We have no plugins.
sys.meta_path[:] = [it for it in sys.meta_path if type(it).__name__ != "PluginImportFixer"]

WIDTH: Final = 860
BAR_HEIGHT: Final = 44
LEAST_HEIGHT: Final = 220
GROWTH_HEIGHT: Final = 380

COMMON: Final[Mapping[str, Any]] = {
    "js": (),  # nothing is loaded from elsewhere
    "no_prefix": True,  # a random one would make every file another
    "style": CleanStyle(font_family="sans-serif"),
    "width": WIDTH,
    "explicit_size": True,
    "truncate_label": -1,
    "truncate_legend": -1,
}


def ratio_chart(ratios: Mapping[str, float]) -> bytes:
    """Bars of how many times the rate of a reference ours is; the axis is logarithmic."""
    chart = HorizontalBar(
        **COMMON,
        height=max(LEAST_HEIGHT, BAR_HEIGHT * (len(ratios) + 2)),
        logarithmic=True,
        print_values=True,
        show_legend=False,
        value_formatter=lambda ratio: f"{ratio:g}",
    )
    chart.title = "Ours beside its references: how many times their rate"
    chart.x_labels = list(ratios)
    chart.add("ratio", list(ratios.values()))
    svg: bytes = chart.render()
    return svg


def growth_chart(sizes: Sequence[int], ratios: Mapping[str, Sequence[float]]) -> bytes:
    """Lines of how much longer each call takes than at the smallest size of the log."""
    chart = Line(
        **COMMON,
        height=GROWTH_HEIGHT,
        range=(0, max(2.0, *(max(found) for found in ratios.values()))),
        legend_at_bottom=True,
        value_formatter=lambda ratio: f"{ratio:.2f}",
    )
    chart.title = "Time of a call, as a multiple of that at the smallest log"
    chart.x_labels = [f"{size:,} events" for size in sizes]
    for name, found in ratios.items():
        chart.add(name, list(found))
    svg: bytes = chart.render()
    return svg
