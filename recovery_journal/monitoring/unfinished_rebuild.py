"""An unfinished rebuild, as the status of each of its projections shows it."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.projections.projection import Projection
from recovery_journal.read_models.rebuild.rebuild_lock import is_under_way
from recovery_journal.read_models.rebuild.registry import RebuildState, Registry


class Portion(StrEnum):
    """The unit of a rebuild's progress: ranges of streams; or positions, where rows mix streams."""

    RANGES = "ranges"
    POSITIONS = "positions"


class UnfinishedRebuild(Struct, frozen=True, kw_only=True):
    """Rows that a rebuild prepares, by the fold of this version. `done` of `total` are folded.

    Where no process runs it, it was killed or has failed, and `do` is the command to run, and
    whether that resumes it or begins from scratch. Until the switch the old rows serve.
    """

    is_at_work: bool
    version: int
    done: int
    total: int
    portion: Portion
    host: str
    process_id: int
    started_at: datetime
    do: str | None


def unfinished_rebuilds(
    cursor: Cursor[DictRow], schema: str, known: Mapping[str, Projection[Any]]
) -> dict[str, UnfinishedRebuild]:
    """By name, those of its projections that are not switched yet; `known` are the program's
    own."""
    is_at_work = is_under_way(cursor, schema)
    begun = Registry().find(cursor)
    if begun is None:
        return {}
    return {
        name: _unfinished(begun, known, name, version, is_at_work=is_at_work)
        for name, version, _ in begun.folds
        if name not in begun.switched
    }


def _unfinished(
    begun: RebuildState,
    known: Mapping[str, Projection[Any]],
    name: str,
    version: int,
    *,
    is_at_work: bool,
) -> UnfinishedRebuild:
    is_mixed = name in known and not known[name].is_stream_keyed
    return UnfinishedRebuild(
        is_at_work=is_at_work,
        version=version,
        done=begun.mixed_event_count if is_mixed else begun.range_count - begun.open_range_count,
        total=begun.position_count if is_mixed else begun.range_count,
        portion=Portion.POSITIONS if is_mixed else Portion.RANGES,
        host=begun.host,
        process_id=begun.process_id,
        started_at=begun.started_at,
        do=None if is_at_work else _do(begun, known),
    )


def _do(begun: RebuildState, known: Mapping[str, Projection[Any]]) -> str:
    """Only a rebuild of the same projections, by the same folds, resumes it."""
    names = sorted(name for name, _, _ in begun.folds)
    projections = [known[name] for name in names if name in known]
    if not begun.is_of(projections):
        return "`recovery-journal rebuild` begins from scratch"
    which = "" if len(projections) == len(known) else f" {' '.join(names)}"
    return f"`recovery-journal rebuild{which}` resumes it"
