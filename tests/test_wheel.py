"""The wheel has one name at its top, and works beside a user's own package `domain`."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest

from scripts.bootstrap import LINKED, restore_links

ROOT = Path(__file__).resolve().parents[1]

RECOVERY = """
import json
import sys
import time
from datetime import timedelta

import recovery_journal as rj
import domain  # the user's own

dsn, schema = sys.argv[1:]
with rj.open(dsn, schema=schema) as journal:
    journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1", kind="report",
                    input={"day": "monday"}, code_version="1", ttl=timedelta(milliseconds=100))
    claims = []
    while not claims:  # until the lease is lost; pytest ends a wait without end
        time.sleep(0.05)
        journal.sweep()
        claims = journal.claim(worker_id="w-2", kinds=["report"], limit=1)
    (claim,) = claims
    claim.lease.complete({"pages": 3})
    print(json.dumps({
        "whose_domain": domain.WHOSE,
        "attempt": claim.context.attempt_id,
        "left_on_the_list": len(journal.dispatch_ready(limit=20)),
        "events": len(journal.history("a-1")),
        "from": rj.__file__,
        "steps": [step.name for step in rj.RecoveryStep.pipeline()],
    }))
"""


def built(source: Path, target: Path, kind: str) -> Path:
    """Build without the network, as an installer would: in a process of its own."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir"]
    done = subprocess.run(
        [*command, str(target), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (artifact,) = target.iterdir()
    return artifact


def unpack(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    (unpacked,) = target.iterdir()
    return unpacked


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture
def python_of_a_user(wheel: Path, tmp_path: Path) -> Path:
    """An environment with the wheel, this one's libraries, and a user's own package `domain`."""
    place = tmp_path / "environment"
    venv.create(place, symlinks=True, with_pip=False)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (packages,) = place.glob("lib/python*/site-packages")
    # A path file within the linked folder is not read again, so the checkout stays out.
    (packages / "libraries.pth").write_text(f"{Path(msgspec.__file__).parents[1]}\n")
    (packages / "domain").mkdir()
    (packages / "domain" / "__init__.py").write_text("WHOSE = 'the user'\n")
    return python


def without_our_path() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}


def test_the_wheel_has_one_name_at_its_top(wheel: Path) -> None:
    names = contents(wheel)

    tops = {name.partition("/")[0] for name in names}

    assert tops == {"recovery_journal", "recovery_journal-0.1.0.dist-info"}
    assert "recovery_journal/py.typed" in names
    assert "recovery_journal/domain/errors.py" in names
    assert "recovery_journal/projections/__init__.py" in names
    assert not [name for name in names if "__pycache__" in name]


def files_below(place: str) -> dict[str, bytes]:
    """The files of one folder of the checkout that the wheel must hold."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / place).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_ships_byte_for_byte_as_it_was_reviewed(wheel: Path) -> None:
    linked = {
        f"recovery_journal/{name}": content
        for place in LINKED
        for name, content in files_below(place).items()
    }

    shipped = {
        name: content for name, content in contents(wheel).items() if ".dist-info/" not in name
    }

    assert shipped == files_below("recovery_journal") | linked
    assert any(name.endswith(".sql") for name in shipped)


def test_the_links_of_the_checkout_point_to_the_packages_at_its_top() -> None:
    for name in LINKED:
        assert (ROOT / "recovery_journal" / name).is_symlink()
        assert (ROOT / "recovery_journal" / name).resolve() == ROOT / name
        assert not (ROOT / name).is_symlink()


def test_tests_run_from_an_unpacked_source_distribution(tmp_path: Path) -> None:
    unpacked = unpack(built(ROOT, tmp_path / "sdist", "sdist"), tmp_path / "unpacked")
    restore_links(unpacked / "recovery_journal")
    tests = ("tests/domain/test_errors.py", "tests/test_architecture.py")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=unpacked,
        env=without_our_path(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_links_are_restored_once_and_leave_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "domain").mkdir()
    (tmp_path / "package" / "projections").mkdir(parents=True)

    for _ in range(2):
        restore_links(tmp_path / "package")

    assert (tmp_path / "package" / "domain").resolve() == tmp_path / "domain"
    assert not (tmp_path / "package" / "projections").is_symlink()


def test_a_wheel_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    unpacked = unpack(built(ROOT, tmp_path / "sdist", "sdist"), tmp_path / "unpacked")

    again = built(unpacked, tmp_path / "again", "wheel")

    assert contents(again) == contents(wheel)
    assert again.name == wheel.name


def test_the_wheel_recovers_beside_a_package_called_domain(
    python_of_a_user: Path, server_dsn: str, schema: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [str(python_of_a_user), "-c", RECOVERY, server_dsn, schema],
        cwd=tmp_path,
        env=without_our_path(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["whose_domain"] == "the user"
    assert Path(said["from"]).is_relative_to(python_of_a_user.parents[1])
    assert said["attempt"] == "a-1"
    assert said["left_on_the_list"] == 0
    assert said["events"] >= 7
    assert said["steps"] == ["LEASE_EXPIRED", "CHECKPOINT_RELOAD", "REPLAY", "READY_FOR_DISPATCH"]


def test_the_wheel_brings_the_command(python_of_a_user: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(python_of_a_user.with_name("recovery-journal")), "--help"],
        cwd=tmp_path,
        env=without_our_path(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "quarantine" in done.stdout
