"""Bugs on purpose, each a change to the product's text: what a simulator must find to be trusted.

A plant whose text is no longer in the product is an error, so that the list keeps up with it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("domain", "projections", "recovery_journal", "scripts")


class Edit(NamedTuple):
    """Text of a file, and what stands there instead."""

    path: str
    sound: str
    broken: str


class Plant(NamedTuple):
    """A bug, and the promise that it breaks."""

    promise: str
    edits: tuple[Edit, ...]


PLANTS: Final[dict[str, Plant]] = {
    "fence-not-compared": Plant(
        "no write of a stale owner is accepted",
        (
            Edit(
                "recovery_journal/leases/writes.py",
                "    AND lease_id = %(lease_id)s\n    AND epoch = %(epoch)s\n",
                "",
            ),
        ),
    ),
    "old-fence-after-loss": Plant(
        "epochs only grow",
        (
            Edit(
                "recovery_journal/recovering/loss.py",
                "                    fence=fence,\n                    is_fleet_wide",
                "                    fence=recovery.fence,\n                    is_fleet_wide",
            ),
        ),
    ),
    "orphans-left": Plant(
        "nothing waits for ever",
        (
            Edit(
                "recovery_journal/recovering/loss.py",
                "    AND status = 'recovering'\n    AND CASE",
                "    AND status = 'recovering' AND retry_at IS NOT NULL\n    AND CASE",
            ),
        ),
    ),
    "gap-not-awaited": Plant(
        "no reader skips an event",
        (),
    ),
    "follower-one-too-far": Plant(
        "projections equal a fold from scratch",
        (
            Edit(
                "recovery_journal/following/follower.py",
                "self._tracking.advance(cursor, projection.name, upto)",
                "self._tracking.advance(cursor, projection.name, upto + 1)",
            ),
        ),
    ),
    "done-before-not-noticed": Plant(
        "asking again after a lost reply finds it done",
        (
            Edit(
                "recovery_journal/leases/writes.py",
                "            if found and (found[\"digest\"], found[\"epoch\"]) == (digest, held.fence.epoch):\n"
                "                return\n",
                "",
            ),
        ),
    ),
}


@contextmanager
def planted(name: str) -> Iterator[Path]:
    """A copy of the project with that bug in it, for as long as it is looked at."""
    with TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in PLANTS[name].edits:
            file = copy / edit.path
            text = file.read_text(encoding="utf-8")
            assert text.count(edit.sound) == 1, f"{name}: {edit.path} no longer says {edit.sound!r}"
            file.write_text(text.replace(edit.sound, edit.broken), encoding="utf-8")
        yield copy
