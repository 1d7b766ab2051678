"""The simulation as a whole: it survives, it repeats itself, and it finds what was planted."""

import json
import subprocess
import sys

import pytest

from scripts.planting import copy_with, plants
from scripts.simulation.faults import FaultKind, written
from scripts.simulation.run import simulate

PLANTS = plants("simulation/plants.toml")
SEEDS_TO_FIND = 1_000
LIMIT_S = 600

# After up to some hundred seeds, which seed it is changes with every change of the product.
FOUND_LATE = frozenset(
    {
        "fence-not-compared",
        "gap-not-awaited",
        "loss-without-a-lock",
        "no-look-under-the-lock",
        "orphans-left",
        "seized-after-reload",
    }
)

pytestmark = pytest.mark.timeout(LIMIT_S)


@pytest.mark.parametrize("seed", [1, 3, 9])  # of which two lose connections again and again
def test_a_seed_has_the_same_calls_in_the_same_order_each_time(
    simulation_dsn: str, seed: int
) -> None:
    first, second = (simulate(simulation_dsn, seed) for _ in range(2))
    assert first == second
    assert not first.violation
    assert first.faults


def test_the_faults_that_a_run_met_bring_it_about_again(simulation_dsn: str) -> None:
    met = simulate(simulation_dsn, 5)
    again = simulate(simulation_dsn, 5, met.faults)
    assert (again.trace, written(again.faults)) == (met.trace, written(met.faults))


def test_without_faults_every_attempt_is_completed_or_asked_not_to_be(simulation_dsn: str) -> None:
    calm = simulate(simulation_dsn, 11, {})
    assert not calm.violation
    assert calm.statuses.keys() <= {"completed", "cancelled"}
    assert not calm.faults


def test_every_kind_of_fault_is_met_in_a_few_seeds(simulation_dsn: str) -> None:
    kinds: set[FaultKind] = set()
    for seed in range(20):
        kinds |= {fault.kind for fault in simulate(simulation_dsn, seed).faults.values()}
        if kinds == set(FaultKind):
            return
    pytest.fail(f"never met: {set(FaultKind) - kinds}")


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.nightly) for name in sorted(FOUND_LATE)),
        *(name for name in PLANTS if name not in FOUND_LATE),
    ],
)
def test_a_planted_bug_is_found_and_the_command_that_is_printed_shows_it_again(name: str) -> None:
    with copy_with(PLANTS[name].edits) as copy:
        command = [sys.executable, "-m", "scripts.simulation"]
        first = ["--first-seed", str(PLANTS[name].first_seed), "--seeds", str(SEEDS_TO_FIND)]
        found = subprocess.run(
            [*command, *first, "--no-shrink"],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert found.returncode == 1, found.stderr
        assert json.loads(found.stdout)["violations"] == 1
        again = found.stderr.partition("to see it again: scripts/simulate ")[2].split()
        shown = subprocess.run(
            [*command, *again, "--no-shrink"], cwd=copy, capture_output=True, check=False
        )
        assert shown.returncode == 1
