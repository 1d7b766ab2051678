"""The parts of a chaos test; workers and the starter record every call that they make."""

from collections.abc import Mapping
from typing import Final

import recovery_journal as rj
from scripts.harness.job import FOLDED, KINDS, folded, work
from scripts.harness.life import Part, Role, Setting, report
from scripts.harness.parts import LIMITS, follow, open_attempts, rebuild, sweep
from scripts.storming.history import History
from scripts.storming.watched import WatchedJournal


def _work(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        rj.Worker(journal, name, dict.fromkeys(KINDS, work), on_event=report).run()


def _start(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        open_attempts(journal, name, KINDS, query=journal.look)


def _watched(name: str, setting: Setting) -> WatchedJournal:
    return WatchedJournal(
        setting.dsn_of(name),
        setting.schema,
        History(setting.histories, name),
        limits=LIMITS,
        reducers={FOLDED: folded},
    )


PARTS: Final[Mapping[Role, tuple[int, Part]]] = {
    Role.WORKER: (6, _work),
    Role.SWEEPER: (2, sweep),
    Role.FOLLOWER: (2, follow),
    Role.STARTER: (1, _start),
    Role.REBUILDER: (1, rebuild),
}
"""How many processes play each part."""
