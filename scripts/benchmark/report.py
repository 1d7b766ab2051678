"""A page of one run: machine, versions, a table for each case, and charts beside it, as SVG.

The same lines make the same files, byte for byte.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeAlias

import psutil
import psycopg
from pygal import HorizontalBar, Line
from pygal.style import CleanStyle

from recovery_journal.postgres.database import one
from scripts.benchmark.cases import description_of
from scripts.benchmark.measuring import markdown_table

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


Lines: TypeAlias = Sequence[Mapping[str, Any]]

INTRODUCTION: Final = """\
# Benchmarks

Written by `scripts/bench all --report {file}`, or of lines that were printed before (`--lines`).
How each case measures, and which goals are not reached, stands in the [results](../results.md).
Figures of one machine are worth little; the ratios of a line are measured within one run, on one
server.
"""

SIZES: Final = ("events", "leases", "batch")
"""The names that distinguish the lines of one case."""

RATIOS: Final = {
    ("mass-crash", "ratio_absurd"): "mass crash / absurd-sdk",
    ("mass-crash", "ratio_pgqueuer"): "mass crash / pgqueuer",
    ("claim", "ratio_pgbench"): "claim / pgbench",
    ("rebuild", "ratio_stock"): "rebuild / library's runner",
    ("as-of", "ratio_naive"): "as of / without index",
}


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Lines that were printed before."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def write_report(
    file: Path, lines: Lines, machine: Mapping[str, str], notes: Sequence[str]
) -> None:
    """Write the page, and its charts into the same folder. `notes` say what could not be done."""
    charts = _charts(file, lines)
    for chart, svg in charts.items():
        chart.write_bytes(svg)
    parts = [INTRODUCTION.format(file=f"docs/figures/{file.name}")]
    parts.append(markdown_table(["", ""], [[name, found] for name, found in machine.items()]))
    parts += [f"Not measured: {note}\n" for note in notes]
    parts += [f"![{chart.stem.replace('-', ' ')}]({chart.name})\n" for chart in charts]
    for case, found in groupby(lines, key=lambda line: line["case"]):
        parts.append(_section(case, list(found)))
    file.write_text("\n".join(parts), encoding="utf-8")


def ratios_of(lines: Lines) -> dict[str, float]:
    """The bars of the chart of ratios: the largest size of each case, each batch of a claim."""
    ratios = {}
    for line in lines:
        for (case, key), name in RATIOS.items():
            if line["case"] == case and line.get(key) is not None:
                batch = f" (batch {line['batch']})" if "batch" in line else ""
                ratios[name + batch] = line[key]
    return ratios


def _charts(file: Path, lines: Lines) -> dict[Path, bytes]:
    charts = {}
    if ratios := ratios_of(lines):
        charts[file.with_name(f"{file.stem}-ratios.svg")] = ratio_chart(ratios)
    grown = [line for line in lines if line["case"] == "growth"]
    if len(grown) > 1:
        names = [name for name in grown[0] if name.startswith("ratio_")]
        found = {name.removeprefix("ratio_"): [line[name] for line in grown] for name in names}
        sizes = [line["events"] for line in grown]
        charts[file.with_name(f"{file.stem}-growth.svg")] = growth_chart(sizes, found)
    return charts


def _section(case: str, lines: Lines) -> str:
    """One case: a column for each of its lines."""
    first = lines[0]
    size = next(
        (size for size in SIZES if len({line.get(size) for line in lines}) == len(lines) > 1), None
    )
    names = [name for name in first if name not in ("case", "unit", size)]
    heads = ["", *(first["unit"] if size is None else f"{line[size]:,} {size}" for line in lines)]
    rows = [[name, *(_shown(line.get(name)) for line in lines)] for name in names]
    return f"## {case}\n\n{description_of(case)}\n\n{markdown_table(heads, rows)}"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}"


ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("recovery-journal", "eventsourcing", "psycopg", "msgspec")
BYTES_PER_GB: Final = 1_000_000_000
CPU_INFO: Final = Path("/proc/cpuinfo")

SERVER: Final = "SELECT current_setting('server_version')"


def describe_machine(dsn: str) -> dict[str, str]:
    """Machine and versions, by name. Nothing in it names a host or a person."""
    with psycopg.connect(dsn) as connection:
        (server_version,) = one(connection.execute(SERVER))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / BYTES_PER_GB:.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "PostgreSQL": server_version,
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    text = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or sys.platform


def _commit() -> str:
    """The commit that was measured, if this is a checkout and git is here."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
