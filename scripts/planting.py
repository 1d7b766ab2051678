"""Bugs on purpose: changes to the product's text, made in a copy of the project."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from msgspec import Struct

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("domain", "projections", "recovery_journal", "scripts", "tests")
SETTINGS: Final = "pyproject.toml"


class Edit(Struct, frozen=True, forbid_unknown_fields=True):
    """Text of a file, and what stands there instead."""

    path: str
    sound: str
    broken: str


class Plant(Struct, frozen=True, forbid_unknown_fields=True):
    """A bug, the promise that it breaks, and what finds it: a seed of the simulator, none of which
    before the first needs to be tried, or a test."""

    edits: tuple[Edit, ...]
    promise: str = ""
    first_seed: int = 0
    test: str = ""


def plants(file: str) -> dict[str, Plant]:
    """The bugs of a file below scripts/, by name."""
    return msgspec.toml.decode((ROOT / "scripts" / file).read_bytes(), type=dict[str, Plant])


@contextmanager
def copy_with(edits: Iterable[Edit]) -> Iterator[Path]:
    """A copy of the project with these edits, within this context."""
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
