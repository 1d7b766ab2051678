"""Bugs that no seed leads to: the test that is named beside each of them has to fail with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.planting import ROOT, copy_with
from scripts.simulation.plants import RACES

LIMIT_S = 120


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("name", RACES)
def test_a_planted_race_is_found_by_its_test_on_the_server(name: str, server_dsn: str) -> None:
    race = RACES[name]

    with copy_with(()) as sound, copy_with(race.edits) as broken:
        assert outcome_of(sound, race.test, server_dsn) == pytest.ExitCode.OK
        assert outcome_of(broken, race.test, server_dsn) == pytest.ExitCode.TESTS_FAILED


def outcome_of(copy: Path, test: str, server_dsn: str) -> int:
    """How pytest ends with this test of a copy of the project."""
    assert copy != ROOT
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=copy,
        env={**os.environ, "RECOVERY_JOURNAL_TEST_DSN": server_dsn},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode
