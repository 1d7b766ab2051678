"""All that the proof rests on, gathered after all processes have ended."""

from collections.abc import Sequence

from msgspec import Struct

import recovery_journal as rj
from recovery_journal.events import (
    Dispatched,
    LeaseEnded,
    LeaseExpired,
    Replayed,
    StaleWriteRefused,
)
from scripts.demonstration.acts import DISTURBED, UNDISTURBED, Plan, Waking
from scripts.demonstration.fault import Struck
from scripts.demonstration.job import Executions
from scripts.demonstration.rows import Rebuilt


class Refusal(Struct, frozen=True, kw_only=True):
    """A write that the journal refused: which, under which epoch, and its position in the log."""

    write: str
    epoch: int
    position: int


class Evidence(Struct, frozen=True, kw_only=True):
    """The findings in the log, in the projections and in the world.

    `recoveries` are the rows of the disturbed attempt, the first loss first, and `losses` the
    events of these losses, by recovery number. `resumed_after` are the ordinals already recorded at
    each dispatch, from the log. `executions` are the ordinals that each process has executed.
    """

    file_count: int
    checkpoint_every: int
    undisturbed_digest: str
    disturbed_digest: str
    struck: tuple[Struck, ...]
    recoveries: tuple[rj.RecoveryContextRow, ...]
    losses: dict[int, LeaseExpired]
    resumed_after: tuple[int, ...]
    executions: tuple[tuple[int, ...], ...]
    waking: Waking
    refusals: tuple[Refusal, ...]
    completed_position: int
    rebuilt: Rebuilt


def gather(
    journal: rj.Journal, plan: Plan, struck: Sequence[Struck], waking: Waking, rebuilt: Rebuilt
) -> Evidence:
    """Read the journal, and the executions of which it knows nothing."""
    log = journal.history(DISTURBED)
    resumed_after, refusals, to_ordinal, completed_position = [], [], 0, 0
    for entry in log:
        match entry.event:
            case Replayed(to_ordinal=to_ordinal):
                pass
            case Dispatched():
                resumed_after.append(to_ordinal)
            case StaleWriteRefused(write=write, fence=fence):
                refusals.append(Refusal(write=write, epoch=fence.epoch, position=entry.position))
            case LeaseEnded():
                completed_position = entry.position
    events = (entry.event for entry in log)
    return Evidence(
        file_count=plan.file_count,
        checkpoint_every=plan.given["checkpoint_every"],
        undisturbed_digest=result_digest(journal, UNDISTURBED),
        disturbed_digest=result_digest(journal, DISTURBED),
        struck=tuple(struck),
        recoveries=tuple(reversed(journal.contexts(attempt_id=DISTURBED))),
        losses={it.recovery_no: it for it in events if isinstance(it, LeaseExpired)},
        resumed_after=tuple(resumed_after),
        executions=tuple(Executions(plan.executions).of(DISTURBED).values()),
        waking=waking,
        refusals=tuple(refusals),
        completed_position=completed_position,
        rebuilt=rebuilt,
    )


def result_digest(journal: rj.Journal, attempt_id: str) -> str:
    """The digest of an attempt's result, from its last event."""
    return str(getattr(journal.recovery(attempt_id).ended, "result_digest", None))
