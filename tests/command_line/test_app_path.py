"""The places where `--app` searches for modules: the working directory is the last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from recovery_journal.cli.main import main; sys.exit(main(sys.argv[1:]))"


def said(folder: Path, *python: str, path: str = str(CHECKOUT)) -> str:
    """The message of `--app` for an attribute that does not exist."""
    done = subprocess.run(
        [sys.executable, *python, "--app", "own_app:nothing", "status"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.mark.parametrize("module", ["statistics", "xmlrpc", "turtledemo", "pytest"])
@pytest.mark.parametrize("start", [("-P", "-c", PROGRAM), ("-m", "recovery_journal.cli.main")])
def test_a_file_in_the_working_directory_stands_in_for_no_installed_module(
    tmp_path: Path, module: str, start: tuple[str, ...]
) -> None:
    (tmp_path / "own_app.py").write_text(f"import {module}")
    (tmp_path / f"{module}.py").write_text("raise SystemExit('the one in the working directory')")

    found = said(tmp_path, *start)

    assert "module 'own_app' has no attribute 'nothing'" in found


def test_what_pythonpath_names_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "own_app.py").write_text("import statistics")
    (tmp_path / "statistics.py").write_text("raise SystemExit('the named one')")

    found = said(
        tmp_path,
        *("-P", "-c", PROGRAM),
        path=os.pathsep.join((str(tmp_path), str(CHECKOUT))),
    )

    assert "the named one" in found
