"""Short soaks, with real processes on a server of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.soaking.member import Leak
from tests.fleets import LIMIT_S, assert_nothing_left, begin, break_off, left_behind


def figures_of(output: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(output)
    return figures


@pytest.mark.timeout(LIMIT_S + 10)
def test_a_healthy_fleet_passes_a_short_soak_and_leaves_nothing_behind(server_folder: Path) -> None:
    process = begin(
        "scripts.soaking", server_folder, "--minutes", "0.3", "--past", "2000", "--json"
    )

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, said
    figures = figures_of(output)
    assert (figures["growing"], figures["wrongs"]) == ([], [])
    assert "nothing grows" in said
    seen = {(it["name"].partition(" (")[0], it["figure"]) for it in figures["judged"]}
    steady = ("worker-1", "sweeper-2", "follower-1", "starter-1", "rebuilder-1", "reader-1")
    for figure in ("memory, MB", "open files", "threads", "children"):
        assert seen.issuperset((name, figure) for name in (*steady, "caller-1", "soak itself"))
    assert {("backend of follower-1", "memory, MB"), ("postmaster", "memory, MB")} <= seen
    assert {("connections of caller-1", "connections"), ("server", "advisory locks")} <= seen
    assert ("table leases", "bytes per row") in seen
    assert_nothing_left(server_folder)


@pytest.mark.timeout(LIMIT_S + 10)
def test_planted_leaks_are_found_where_they_are(server_folder: Path) -> None:
    plants = [it for leak in Leak for it in ("--plant", leak)]
    process = begin(
        "scripts.soaking", server_folder, "--minutes", "0.3", "--past", "300", "--json", *plants
    )

    output, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1, said
    found = {(it["name"], it["figure"]): it["text"] for it in figures_of(output)["growing"]}
    assert {
        ("follower-1", "memory, MB"),
        ("follower-2", "memory, MB"),
        ("reader-1", "open files"),
        ("connections of caller-1", "connections"),
    } <= found.keys()
    innocent = ("worker", "sweeper", "starter", "child of a worker")
    assert [name for name, _figure in found if name.startswith(innocent)] == []
    assert f"GROWS: {found['reader-1', 'open files']}" in said
    [kept] = server_folder.iterdir()
    assert {"samples.jsonl", "reader-1.log"} <= {it.name for it in kept.iterdir()}
    assert left_behind(server_folder) == []


def test_a_soak_that_is_broken_off_leaves_nothing_behind(server_folder: Path) -> None:
    process = begin("scripts.soaking", server_folder, "--past", "10")

    break_off(process, server_folder, member_count=12)
