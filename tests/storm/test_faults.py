"""The plan of faults, and the job that they hit."""

from itertools import islice

from scripts.harness.job import Run
from scripts.storming.storm import FAULTS, KILLS, Kind, plan


def test_a_seed_is_a_plan() -> None:
    assert list(islice(plan(7), 500)) == list(islice(plan(7), 500))
    assert list(islice(plan(7), 500)) != list(islice(plan(8), 500))


def test_every_kind_of_fault_is_used_and_has_a_target_or_is_the_servers() -> None:
    used = {fault.kind for fault in islice(plan(7), 2_000)}

    assert used == set(Kind) == set(FAULTS)
    of_the_server = {
        Kind.CUT,
        Kind.KILL_BACKEND,
        Kind.KILL_SERVER,
        Kind.FILL_DISK,
        Kind.CHANGE_SETTING,
    }
    assert {kind for kind in Kind if FAULTS[kind].role} == set(Kind) - of_the_server
    assert Kind.SUSPEND_WORKER not in KILLS


def test_without_a_small_disk_none_is_filled() -> None:
    assert Kind.FILL_DISK not in {
        fault.kind for fault in islice(plan(7, has_small_disk=False), 2_000)
    }


def test_the_result_of_a_run_depends_on_its_name_alone() -> None:
    assert Run.of("a-1") == Run.of("a-1")
    assert Run.of("a-1").result == Run.of("a-1").result
    assert Run.of("a-1").result["digest"] != Run.of("a-2").result["digest"]
    assert Run.of("a-1").result["count"] == Run.of("a-1").step_count
