"""Bugs on purpose: changes to the product's text, made in a copy of the project."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("domain", "projections", "recovery_journal", "scripts", "tests")
SETTINGS: Final = "pyproject.toml"


class Edit(NamedTuple):
    """Text of a file, and what stands there instead."""

    path: str
    sound: str
    broken: str


@contextmanager
def copy_with(edits: Iterable[Edit]) -> Iterator[Path]:
    """A copy of the project with these edits, for as long as it is looked at."""
    with TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package,
                copy / package,
                symlinks=True,  # the links below recovery_journal must lead into the copy
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        shutil.copy(ROOT / SETTINGS, copy / SETTINGS)
        for edit in edits:
            file = copy / edit.path
            text = file.read_text(encoding="utf-8")
            assert text.count(edit.sound) == 1, f"{edit.path} no longer says {edit.sound!r}"
            file.write_text(text.replace(edit.sound, edit.broken), encoding="utf-8")
        yield copy
