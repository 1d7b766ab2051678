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

from scripts.wheel_layout import CannotMove, lay_out, rewritten

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


def test_every_statement_of_sql_is_shipped(wheel: Path) -> None:
    in_checkout = {path.name for path in (ROOT / "recovery_journal").rglob("*.sql")}

    in_wheel = {name.rpartition("/")[2] for name in contents(wheel) if name.endswith(".sql")}

    assert in_wheel == in_checkout


def test_a_wheel_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    archive = built(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()

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


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import domain", "import recovery_journal.domain as domain"),
        ("import domain as d", "import recovery_journal.domain as d"),
        (
            "import os, domain.lease, sys",
            "import os, recovery_journal.domain.lease, recovery_journal.domain as domain, sys",
        ),
        ("import domain.lease as held", "import recovery_journal.domain.lease as held"),
        ("from domain import lease", "from recovery_journal.domain import lease"),
        (
            "def f():\n    from \\\n  projections.ready import (\n  row)",
            "def f():\n    from \\\n  recovery_journal.projections.ready import (\n  row)",
        ),
        (
            "é = 'from domain import x'; from domain import x",
            "é = 'from domain import x'; from recovery_journal.domain import x",
        ),
        (
            "a = 1\r\n\x0cfrom domain import x\r\n",
            "a = 1\r\n\x0cfrom recovery_journal.domain import x\r\n",
        ),
        ("\ufefffrom domain import x", "\ufefffrom recovery_journal.domain import x"),
    ],
)
def test_an_import_of_a_moved_package_follows_it(source: str, expected: str) -> None:
    moved = rewritten(source.encode(), Path("module.py")).decode()

    assert moved == expected
    compile(moved.encode(), "module.py", "exec")


@pytest.mark.parametrize(
    "source",
    [
        "from .domain import x",
        "from . import domain",
        "import domains.lease",
        "from recovery_journal.domain import x",
        "'''from domain import x'''",
        "# import domain",
        "domain = 'domain'",
    ],
)
def test_what_is_no_import_of_a_moved_package_is_left_alone(source: str) -> None:
    assert rewritten(source.encode(), Path("module.py")).decode() == source


@pytest.mark.parametrize(
    "source",
    [
        "topic = 'domain.recovery:Recovery'",
        "import importlib\nimportlib.import_module('projections.ready')",
        "from importlib.resources import files\nfiles('domain')",
        "__import__('domain')",
    ],
)
def test_a_name_that_only_running_code_would_look_up_stops_the_build(source: str) -> None:
    with pytest.raises(CannotMove, match=r"cannot move module\.py: found"):
        rewritten(source.encode(), Path("module.py"))


def test_a_package_in_the_place_of_a_moved_one_stops_the_build(tmp_path: Path) -> None:
    for folder in ("domain", "projections", "recovery_journal/projections"):
        (tmp_path / "checkout" / folder).mkdir(parents=True)
        (tmp_path / "checkout" / folder / "__init__.py").touch()

    with pytest.raises(CannotMove, match="in the place of projections"):
        lay_out(tmp_path / "checkout", tmp_path / "wheel")
