"""Bugs that no seed finds: the test that is named beside each of them has to fail with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.planting import copy_with, plants

RACES = plants("simulation/races.toml")
LIMIT_S = 120

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


@pytest.mark.parametrize("name", RACES)
def test_a_planted_race_is_found_by_its_test_on_the_server(name: str, server_dsn: str) -> None:
    with copy_with(RACES[name].edits) as copy:
        assert how_pytest_ends(copy, server_dsn, RACES[name].test) == pytest.ExitCode.TESTS_FAILED


def test_an_unchanged_copy_passes_all_of_these_tests(server_dsn: str) -> None:
    with copy_with(()) as copy:
        tests = [race.test for race in RACES.values()]
        assert how_pytest_ends(copy, server_dsn, *tests) == pytest.ExitCode.OK


def how_pytest_ends(copy: Path, server_dsn: str, *tests: str) -> int:
    """The exit code of pytest with these tests of a copy of the project."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "RECOVERY_JOURNAL_TEST_DSN": server_dsn},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode
