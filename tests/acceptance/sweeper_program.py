"""A sweeper in a process of its own: `python -m tests.acceptance.sweeper_program <settings>`.

It sweeps until it has swept something, and says with what stage or error that ended.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from psycopg import Cursor
from psycopg.rows import DictRow

import recovery_journal as rj
from recovery_journal.domain.replay import ReplayOutcome
from recovery_journal.recovery.replayer import TailReplayer
from recovery_journal.store.ledger import Ledger, Moved
from recovery_journal.store.move import Move
from tests.acceptance.job import LIMITS
from tests.acceptance.stop import Stop, say, settings

given = settings()
stop = Stop(given.stop_at)
replay = TailReplayer.replay
Write: TypeAlias = Callable[[Ledger, Cursor[DictRow], Sequence[Move]], list[Moved]]


def replay_and_reach(self: TailReplayer, *work: Any) -> Sequence[ReplayOutcome]:
    outcomes = replay(self, *work)
    stop.reach("replay computed")
    return outcomes


def reaching(write: Write) -> Write:
    def write_and_reach(
        self: Ledger, cursor: Cursor[DictRow], moves: Sequence[Move]
    ) -> list[Moved]:
        answers = write(self, cursor, moves)
        if moves:
            stop.reach(f"{type(moves[0].events[0]).__name__} uncommitted")
        return answers

    return write_and_reach


TailReplayer.replay = replay_and_reach  # type: ignore[method-assign, assignment]  # what no observer sees
Ledger.record = reaching(Ledger.record)  # type: ignore[method-assign, assignment]  # likewise
Ledger.go_on = reaching(Ledger.go_on)  # type: ignore[method-assign, assignment]  # likewise

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
