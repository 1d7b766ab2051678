"""All that the verdict rests on: the contents of the journal, and the calls that processes made."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

import recovery_journal as rj
from recovery_journal.cli.essentials import tag_shown
from recovery_journal.domain.events import LeaseExpired
from recovery_journal.values.payload import encode
from scripts.harness.job import FOLDED, Run, folded
from scripts.harness.life import Role, Setting
from scripts.harness.parts import LIMITS, REBUILT
from scripts.storming.history import Operation, by_attempt, grouped, operations
from scripts.storming.storm import Survived

CATCH_UP_LIMIT_S: Final = 60
PAGE: Final = 1_000

ATTEMPTS: Final = """
SELECT attempt_id, run_id, status, epoch, version, ordinal, chain, checkpoint_count, result_digest
FROM leases
ORDER BY attempt_id
"""

STEPS: Final = """
SELECT run_id, ordinal, name, output, chain, epoch
FROM run_steps
ORDER BY run_id, ordinal
"""

CHECKPOINTS: Final = """
SELECT run_id, checkpoint_no AS ordinal, epoch
FROM checkpoints
ORDER BY run_id, checkpoint_no
"""


class Attempt(Struct, frozen=True, kw_only=True):
    """The lease row of one attempt."""

    attempt_id: str
    run_id: str
    status: str
    epoch: int
    version: int
    ordinal: int
    chain: str
    checkpoint_count: int
    result_digest: str | None

    @property
    def input_digest(self) -> str:
        """The digest of its run's input."""
        return encode(Run.of(self.attempt_id).input, name="input").digest

    @property
    def expected_digest(self) -> str:
        """The digest of the result of an undisturbed execution."""
        return encode(Run.of(self.attempt_id).result, name="result").digest


class Saved(Struct, frozen=True, kw_only=True):
    """One checkpoint, as stored; `ordinal` is its own number."""

    run_id: str
    ordinal: int
    epoch: int


class Step(Saved, frozen=True, kw_only=True):
    """One recorded run step, as stored."""

    name: str
    output: bytes
    chain: str


class Evidence(Struct, frozen=True, kw_only=True):
    """The stores, the log, the projections and the calls of the processes, each read for itself.
    `entries` are the log's, by attempt. `rebuild_count` rebuilds were finished meanwhile."""

    survived: Survived
    attempts: tuple[Attempt, ...]
    steps: dict[str, list[Step]]
    checkpoints: dict[str, list[Saved]]
    entries: dict[str, list[rj.HistoryEntry]]
    checked: tuple[rj.CheckedProjection, ...]
    histories: dict[str, list[Operation]]
    rebuild_count: int = 0

    @property
    def recorded(self) -> dict[str, int]:
        """How many events of each type the log has, losses by their evidence."""
        found: Counter[str] = Counter()
        for entry in (it for entries in self.entries.values() for it in entries):
            event = entry.event
            found[tag_shown(event)] += 1
            if isinstance(event, LeaseExpired):
                found[f"lost by {event.loss}"] += 1
        return dict(sorted(found.items()))


def gather(setting: Setting, survived: Survived) -> Evidence:
    """Once the processes have ended: bring the projections up to date, and read everything."""
    reducers = {FOLDED: folded}
    with rj.open(setting.dsn, schema=setting.schema, limits=LIMITS, reducers=reducers) as journal:
        rj.Follower(journal).catch_up(CATCH_UP_LIMIT_S)
        with journal.database.cursor() as cursor:
            attempts = tuple(Attempt(**row) for row in cursor.execute(ATTEMPTS))
            steps = [Step(**row) for row in cursor.execute(STEPS)]
            checkpoints = [Saved(**row) for row in cursor.execute(CHECKPOINTS)]
        return Evidence(
            survived=survived,
            attempts=attempts,
            steps=grouped(steps, lambda it: it.run_id),
            checkpoints=grouped(checkpoints, lambda it: it.run_id),
            entries=grouped(_log(journal), lambda it: it.event.originator_id),
            checked=journal.check(),
            histories=by_attempt(operations(setting.histories)),
            rebuild_count=setting.report_count(Role.REBUILDER, REBUILT),
        )


def _log(journal: rj.Journal) -> Iterator[rj.HistoryEntry]:
    after = 0
    while page := journal.log(after=after, limit=PAGE):
        yield from page
        after = page[-1].position
