"""A sweeper in a process of its own: `python -m tests.acceptance.sweeper_program <settings>`.

It sweeps until it has swept something, and says with what stage or error that ended.
"""

import time
from collections.abc import Sequence
from typing import Any

from psycopg import Cursor
from psycopg.rows import DictRow

import recovery_journal as rj
from recovery_journal.domain.errors import AppendConflict
from recovery_journal.domain.events import AnyEvent
from recovery_journal.domain.replay import ReplayOutcome
from recovery_journal.log.appender import append_cohort
from recovery_journal.recovery.replayer import TailReplayer
from recovery_journal.store import ledger
from tests.acceptance.job import LIMITS
from tests.acceptance.stop import Stop, say, settings

given = settings()
stop = Stop(given.stop_at)
replay = TailReplayer.replay


def replay_and_reach(self: TailReplayer, *work: Any) -> Sequence[ReplayOutcome]:
    outcomes = replay(self, *work)
    stop.reach("replay computed")
    return outcomes


def append_and_reach(
    batches: Sequence[Sequence[AnyEvent]], cursor: Cursor[DictRow]
) -> list[int | AppendConflict]:
    answers = append_cohort(batches, cursor)
    stop.reach(f"{type(batches[0][0]).__name__} uncommitted")
    return answers


TailReplayer.replay = replay_and_reach  # type: ignore[method-assign, assignment]  # what no observer sees
ledger.append_cohort = append_and_reach  # type: ignore[attr-defined]  # likewise

with rj.open(
    given.dsn,
    schema=given.schema,
    limits=LIMITS,
    observer=lambda taken: stop.reach(taken.step.name),
) as journal:
    stop.reach("before")
    swept: list[rj.SweepResult] = []
    while not swept:
        swept = journal.sweep()
        if not swept and journal.recovery("a-1").stage is rj.Stage.ENDED:
            say("nothing to do")
            break
        time.sleep(0.01)
    for one in swept:
        say(one.error or str(one.stage))
