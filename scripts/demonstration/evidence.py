"""All that the proof rests on, gathered once everything is over."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

import recovery_journal as rj
from scripts.demonstration.acts import DISTURBED, UNDISTURBED, Setting, Waking
from scripts.demonstration.blow import Struck
from scripts.demonstration.executions import Executions
from scripts.demonstration.rows import Rebuilt
from scripts.demonstration.timeline import Recovered, events, recoveries


class Refusal(Struct, frozen=True, kw_only=True):
    """A write that the journal refused: which, under which fence, and where the log says so."""

    write: str
    epoch: int
    position: int


class Evidence(Struct, frozen=True, kw_only=True):
    """What was found in the log, in the projections and in the world.

    `resumed_after` are the ordinals already recorded at each dispatch, as the log tells.
    `executions` are the ordinals that each process has executed, in its order.
    """

    file_count: int
    checkpoint_every: int
    undisturbed_digest: str
    disturbed_digest: str
    struck: tuple[Struck, ...]
    recoveries: tuple[Recovered, ...]
    resumed_after: tuple[int, ...]
    executions: tuple[tuple[int, ...], ...]
    waking: Waking
    refusals: tuple[Refusal, ...]
    completed_position: int
    rebuilt: Rebuilt


def gather(
    journal: rj.Journal,
    setting: Setting,
    struck: Sequence[Struck],
    waking: Waking,
    rebuilt: Rebuilt,
) -> Evidence:
    """Ask the journal, and those who know nothing of it."""
    log = events(journal, DISTURBED)
    ended = [event for event in log if event["type"] == "lease-ended"]
    return Evidence(
        file_count=setting.file_count,
        checkpoint_every=setting.given["checkpoint_every"],
        undisturbed_digest=result_digest(journal, UNDISTURBED),
        disturbed_digest=result_digest(journal, DISTURBED),
        struck=tuple(struck),
        recoveries=recoveries(journal, DISTURBED),
        resumed_after=_resumed_after(log),
        executions=tuple(Executions(setting.executions).of(DISTURBED).values()),
        waking=waking,
        refusals=tuple(
            Refusal(write=event["write"], epoch=event["fence"]["epoch"], position=event["position"])
            for event in log
            if event["type"] == "stale-write-refused"
        ),
        completed_position=ended[-1]["position"],
        rebuilt=rebuilt,
    )


def result_digest(journal: rj.Journal, attempt_id: str) -> str:
    """The digest of what an attempt came to, as its last event tells."""
    ended = journal.recovery(attempt_id).ended
    return str(getattr(ended, "result_digest", None))


def _resumed_after(log: list[dict[str, Any]]) -> tuple[int, ...]:
    """At each dispatch: up to where the replay before it came."""
    found, to_ordinal = [], 0
    for event in log:
        if event["type"] == "replayed":
            to_ordinal = event["to_ordinal"]
        elif event["type"] == "dispatched":
            found.append(to_ordinal)
    return tuple(found)
