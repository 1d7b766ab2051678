"""A page of one run: machine, versions, a table for each case, and charts beside it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeAlias

from scripts.benchmark.cases import description_of
from scripts.benchmark.chart import growth_chart, ratio_chart

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
    file.write_text(page(file, lines, machine, notes, list(charts)), encoding="utf-8")


def page(
    file: Path,
    lines: Lines,
    machine: Mapping[str, str],
    notes: Sequence[str],
    charts: Iterable[Path] = (),
) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION.format(file=f"docs/figures/{file.name}")]
    parts.append(_table(["", ""], [[name, found] for name, found in machine.items()]))
    parts += [f"Not measured: {note}\n" for note in notes]
    parts += [f"![{chart.stem.replace('-', ' ')}]({chart.name})\n" for chart in charts]
    for case, found in groupby(lines, key=lambda line: line["case"]):
        parts.append(_section(case, list(found)))
    return "\n".join(parts)


def ratios_of(lines: Lines) -> dict[str, float]:
    """What the chart of ratios shows: the largest size of each case, each batch of a claim."""
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
    return f"## {case}\n\n{description_of(case)}\n\n{_table(heads, rows)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}"
