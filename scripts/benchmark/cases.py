"""The cases of the benchmark; the docstring of each says what it measures."""

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, Final

from scripts.benchmark.as_of import measure_as_of
from scripts.benchmark.churn import measure_churn
from scripts.benchmark.claim import measure_claim
from scripts.benchmark.cost import measure_budget
from scripts.benchmark.fleet import measure_fleet, measure_herd
from scripts.benchmark.fleet_load import measure_idle, measure_sweepers
from scripts.benchmark.gap_check import measure_gap_check
from scripts.benchmark.growth import measure_growth
from scripts.benchmark.latency import measure_detect, measure_wake
from scripts.benchmark.mass_crash import measure_mass_crash
from scripts.benchmark.measuring import Line
from scripts.benchmark.rebuild import measure_rebuild

CASES: Final[dict[str, Callable[[str, Namespace], Iterator[Line]]]] = {
    "gap-check": measure_gap_check,
    "rebuild": measure_rebuild,
    "as-of": measure_as_of,
    "mass-crash": measure_mass_crash,
    "lease-budget": measure_budget,
    "claim": measure_claim,
    "detect": measure_detect,
    "wake": measure_wake,
    "growth": measure_growth,
    "churn": measure_churn,
    "fleet": measure_fleet,
}

PARTS: Final[dict[str, Callable[..., Any]]] = {
    "fleet-herd": measure_herd,
    "fleet-idle": measure_idle,
    "fleet-sweepers": measure_sweepers,
}
"""The lines of a case that has several."""


def description_of(case: str) -> str:
    """The meaning of a case's figures: the beginning of its docstring."""
    measure = {**CASES, **PARTS}.get(case)
    text = inspect.getdoc(measure) if measure else None
    return " ".join((text or "").partition("\n\n")[0].split())
