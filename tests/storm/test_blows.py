"""The plan of blows, and the job that they fall on."""

from itertools import islice

from scripts.storming.blow import KILLS, WEIGHTS, Weapon, blows
from scripts.storming.job import Run
from scripts.storming.storm import TARGETS


def test_a_seed_is_a_plan() -> None:
    assert list(islice(blows(7), 500)) == list(islice(blows(7), 500))
    assert list(islice(blows(7), 500)) != list(islice(blows(8), 500))


def test_every_weapon_is_used_and_has_a_target_or_is_the_servers() -> None:
    used = {blow.weapon for blow in islice(blows(7), 2_000)}

    assert used == set(Weapon) == set(WEIGHTS)
    of_the_server = {
        Weapon.CUT,
        Weapon.KILL_BACKEND,
        Weapon.KILL_SERVER,
        Weapon.FILL_DISK,
        Weapon.CHANGE_SETTING,
    }
    assert set(TARGETS) == set(Weapon) - of_the_server
    assert Weapon.SUSPEND_WORKER not in KILLS


def test_without_a_small_disk_none_is_filled() -> None:
    assert Weapon.FILL_DISK not in {
        blow.weapon for blow in islice(blows(7, has_small_disk=False), 2_000)
    }


def test_the_result_of_a_run_depends_on_its_name_alone() -> None:
    assert Run.of("a-1") == Run.of("a-1")
    assert Run.of("a-1").result == Run.of("a-1").result
    assert Run.of("a-1").result["digest"] != Run.of("a-2").result["digest"]
    assert Run.of("a-1").result["count"] == Run.of("a-1").step_count
