"""An environment of the rivals' own: they come from the package index, and never into ours."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
VENV: Final = ROOT / ".venv-rivals"
PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / "rivals.stamp"


def rivals_python() -> Path:
    """The Python that knows the rivals; installed at first use, and when their ranges change."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted: list[str] = project["dependency-groups"]["rivals"]
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != "\n".join(wanted):
        sys.stderr.write("mass-crash: installing the rivals into .venv-rivals (once)\n")
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        options = ("--quiet", "--disable-pip-version-check", "--no-input")
        _run(str(PYTHON), "-m", "pip", "install", *options, *wanted)
        STAMP.write_text("\n".join(wanted), encoding="utf-8")
    return PYTHON


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
