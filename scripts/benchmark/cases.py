"""The cases of the benchmark; the docstring of each says what it measures."""

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from scripts.benchmark.claim import measure_claim
from scripts.benchmark.cost import measure_budget
from scripts.benchmark.fleet import measure_fleet, measure_herd
from scripts.benchmark.fleet_load import measure_idle, measure_sweepers
from scripts.benchmark.growth import measure_churn, measure_growth
from scripts.benchmark.latency import measure_detect, measure_wake
from scripts.benchmark.mass_crash import measure_mass_crash
from scripts.benchmark.measuring import Line
from scripts.benchmark.reading import measure_as_of, measure_gap_check
from scripts.benchmark.rebuild import measure_rebuild


class Case(NamedTuple):
    """Yields its lines, each without name and unit, which are the same in all of them."""

    measure: Callable[[str, Namespace], Iterator[Line]]
    unit: str = ""


CASES: Final = {
    "gap-check": Case(measure_gap_check, "ms"),
    "rebuild": Case(measure_rebuild, "events/s"),
    "as-of": Case(measure_as_of, "ms"),
    "mass-crash": Case(measure_mass_crash, "leases/s"),
    "lease-budget": Case(measure_budget, "us"),
    "claim": Case(measure_claim, "leases/s"),
    "detect": Case(measure_detect, "s from SIGKILL to the function's call elsewhere"),
    "wake": Case(measure_wake, "ms from the time of ReadyForDispatch to the function's call"),
    "growth": Case(measure_growth, "ms"),
    "churn": Case(measure_churn, "MB"),
    "fleet": Case(measure_fleet),
}

PARTS: Final[dict[str, Callable[..., Any]]] = {
    "fleet-herd": measure_herd,
    "fleet-idle": measure_idle,
    "fleet-sweepers": measure_sweepers,
}
"""The lines of a case that has several, which name themselves."""


def measured(name: str, dsn: str, options: Namespace) -> Iterator[Line]:
    """The lines of a case."""
    case = CASES[name]
    for line in case.measure(dsn, options):
        yield {"case": name, "unit": case.unit} | line


def description_of(case: str) -> str:
    """The meaning of a case's figures: the beginning of its docstring."""
    measure = PARTS.get(case) or (CASES[case].measure if case in CASES else None)
    text = inspect.getdoc(measure) if measure else None
    return " ".join((text or "").partition("\n\n")[0].split())
