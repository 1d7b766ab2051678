"""A short storm, with real processes on a server of its own."""

import json
from pathlib import Path

import pytest

from tests.fleets import LIMIT_S, assert_nothing_left, begin, break_off


@pytest.mark.timeout(LIMIT_S + 10)
def test_a_short_storm_is_survived_and_leaves_nothing_behind(server_folder: Path) -> None:
    process = begin("scripts.storming", server_folder, "--minutes", "0.25", "--seed", "7", "--json")

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, said
    figures = json.loads(output)
    assert (figures["seed"], figures["violations"]) == (7, [])
    assert figures["survived"]["kills"] > 0
    assert figures["recorded"]["lease-ended"] == figures["survived"]["attempts"] > 0
    assert figures["checked"]["claims"] > 0
    assert "nothing lost, nothing owned twice" in said
    assert_nothing_left(server_folder)


def test_a_storm_that_is_broken_off_leaves_nothing_behind(server_folder: Path) -> None:
    process = begin("scripts.storming", server_folder, "--minutes", "2")

    break_off(process, server_folder, member_count=10)
