"""Bugs on purpose, each a change to the product's text: what a simulator must find to be trusted.

A plant whose text is no longer in the product is an error, so that the list keeps up with it.
"""

import shutil
from collections.abc import Iterable, Iterator
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
    """A bug, the promise that it breaks, and a seed before which nobody need look for it."""

    promise: str
    edits: tuple[Edit, ...]
    first_seed: int = 0


WRITES = "recovery_journal/leases/writes.py"
LOSS = "recovery_journal/recovering/loss.py"
COHORT = "recovery_journal/recovering/cohort.py"
FOLLOWER = "recovery_journal/following/follower.py"

PLANTS: Final[dict[str, Plant]] = {
    "fence-not-compared": Plant(
        "no write of a stale owner is accepted",
        (Edit(WRITES, "    AND lease_id = %(lease_id)s\n    AND epoch = %(epoch)s\n", ""),),
        first_seed=5,
    ),
    "fence-kept-after-loss": Plant(
        "epochs only grow",
        (
            Edit(
                LOSS,
                "fence=fence,\n                    is_fleet",
                "fence=recovery.fence,\n                    is_fleet",
            ),
            Edit(
                "domain/steps.py",
                '        recovery.require_newer("fence the lost lease", fence)\n',
                "        pass\n",
            ),
        ),
    ),
    "orphans-left": Plant(
        "nothing waits for ever",
        (
            Edit(
                LOSS,
                "        ELSE greatest(expires_at, %(up_since)s",
                "        ELSE false AND greatest(expires_at, %(up_since)s",
            ),
        ),
    ),
    "grace-not-waited-for": Plant(
        "nobody is declared dead too early",
        (
            Edit(
                LOSS,
                "+ make_interval(secs => %(grace_s)s) < clock_timestamp()\n    )\n",
                "< clock_timestamp()\n    )\n",
            ),
        ),
    ),
    "outage-is-a-death": Plant(
        "an outage of the server is nobody's death",
        (
            Edit(
                LOSS,
                "greatest(expires_at, %(up_since)s + make_interval(secs => ttl_s))",
                "expires_at",
            ),
        ),
        first_seed=1,
    ),
    "session-believed-at-once": Plant(
        "a cut connection is no death before its grace has passed",
        (Edit("domain/session_sight.py", "now - it.gone_at >= grace}", "now >= it.gone_at}"),),
        first_seed=8,
    ),
    "loss-without-a-lock": Plant(
        "the evidence of a loss is the lease as it was",
        (Edit(LOSS, "LIMIT %(limit)s\nFOR NO KEY UPDATE SKIP LOCKED", "LIMIT %(limit)s"),),
        first_seed=10,
    ),
    "ready-before-replay": Plant(
        "ready means reloaded and replayed",
        (
            Edit(
                COHORT,
                "Stage.RELOADED: RecoveryStep.REPLAY,",
                "Stage.RELOADED: RecoveryStep.READY_FOR_DISPATCH,",
            ),
            Edit(
                "domain/steps.py",
                'ready for dispatch", Stage.REPLAYED)',
                'ready for dispatch", Stage.REPLAYED, Stage.RELOADED)',
            ),
        ),
    ),
    "done-before-not-noticed": Plant(
        "a write asked for again after a lost reply happens once",
        (
            Edit(
                WRITES,
                '(found["digest"], found["epoch"]) == (digest, held.fence.epoch)',
                '(found["digest"], found["epoch"]) == (digest, 0)',
            ),
        ),
        first_seed=2,
    ),
    "gap-not-awaited": Plant(
        "no reader skips an event",
        (
            Edit(
                "recovery_journal/log/reader.py",
                'safe = _safe_prefix(page, wanted["after"], mark)',
                "safe = page",
            ),
        ),
        first_seed=4,
    ),
    "follower-one-too-far": Plant(
        "projections equal a fold from scratch",
        (
            Edit(
                FOLLOWER,
                "self._tracking.advance(cursor, projection.name, upto)",
                "self._tracking.advance(cursor, projection.name, upto + 1)",
            ),
        ),
    ),
    "oldest-checkpoint": Plant(
        "the newest checkpoint is reloaded, and what came after it",
        (
            Edit(
                "recovery_journal/leases/tips.py",
                "= runs.run_id AND NOT is_void\n    ORDER BY checkpoint_no DESC",
                "= runs.run_id AND NOT is_void\n    ORDER BY checkpoint_no",
            ),
        ),
        first_seed=1,
    ),
}


@contextmanager
def planted(name: str) -> Iterator[Path]:
    """A copy of the project with that bug in it, for as long as it is looked at."""
    with copy_with(PLANTS[name].edits) as copy:
        yield copy


@contextmanager
def copy_with(edits: Iterable[Edit]) -> Iterator[Path]:
    """A copy of the project with these edits, for as long as it is looked at."""
    with TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for edit in edits:
            file = copy / edit.path
            text = file.read_text(encoding="utf-8")
            assert text.count(edit.sound) == 1, f"{edit.path} no longer says {edit.sound!r}"
            file.write_text(text.replace(edit.sound, edit.broken), encoding="utf-8")
        yield copy
