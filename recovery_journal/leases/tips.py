"""Reading the tips of runs: the newest checkpoint of each, and the run steps after it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from psycopg import Cursor
from psycopg.rows import DictRow

from domain.checkpoint import (
    Checkpoint,
    CheckpointProblem,
    CheckpointRef,
    InDoubt,
    ProblemKind,
    RunStep,
)
from domain.digest import chain_origin

# Digests are computed from the stored bytes, so damage shows without moving a state.
NEWEST_CHECKPOINTS = """
SELECT runs.run_id,
    runs.input_digest,
    newest.checkpoint_no,
    newest.ordinal,
    newest.chain,
    newest.state_digest,
    octet_length(newest.state) AS state_bytes,
    'cs1:' || encode(sha256(newest.state), 'hex') AS found_digest,
    newest.format_version,
    newest.code_version,
    newest.epoch,
    newest.written_at,
    (SELECT max(checkpoint_no) FROM checkpoints WHERE run_id = runs.run_id) AS newest_no
FROM runs
LEFT JOIN LATERAL (
    SELECT *
    FROM checkpoints
    WHERE checkpoints.run_id = runs.run_id AND NOT is_void
    ORDER BY checkpoint_no DESC
    LIMIT 1
) AS newest ON true
WHERE runs.run_id = ANY(%(run_ids)s)
"""

TAILS = """
SELECT run_id,
    run_steps.ordinal,
    name,
    'cs1:' || encode(sha256(output), 'hex') AS output_digest,
    chain,
    epoch
FROM run_steps
JOIN unnest(%(run_ids)s::text[], %(ordinals)s::bigint[]) AS tip(run_id, ordinal) USING (run_id)
WHERE run_steps.ordinal > tip.ordinal
ORDER BY run_id, run_steps.ordinal
"""

ANNOUNCED = """
SELECT run_id, ordinal, name
FROM announcements
WHERE run_id = ANY(%(run_ids)s)
    AND NOT EXISTS (
        SELECT
        FROM run_steps
        WHERE run_steps.run_id = announcements.run_id
            AND run_steps.ordinal = announcements.ordinal
    )
ORDER BY run_id, ordinal
"""


def read_tips(cursor: Cursor[DictRow], runs: Sequence[str]) -> list[Checkpoint | CheckpointProblem]:
    """The tip of each run, in the order asked for; damage is the element's answer."""
    wanted = {"run_ids": list(runs)}
    found = {row["run_id"]: row for row in cursor.execute(NEWEST_CHECKPOINTS, wanted).fetchall()}
    tails = _tails(cursor, found)
    announced = defaultdict(list)
    for row in cursor.execute(ANNOUNCED, wanted).fetchall():
        key = step_key(row["run_id"], row["ordinal"])
        announced[row["run_id"]].append(InDoubt(key=key, name=row["name"]))
    return [_tip(run_id, found.get(run_id), tails[run_id], announced[run_id]) for run_id in runs]


def step_key(run_id: str, ordinal: int) -> str:
    """The stable key of a run step's effect."""
    return f"{run_id}/{ordinal}"


def _tails(cursor: Cursor[DictRow], found: Mapping[str, DictRow]) -> dict[str, list[RunStep]]:
    wanted = {
        "run_ids": list(found),
        "ordinals": [row["ordinal"] or 0 for row in found.values()],
    }
    tails: dict[str, list[RunStep]] = defaultdict(list)
    for row in cursor.execute(TAILS, wanted).fetchall():
        tails[row["run_id"]].append(
            RunStep(
                ordinal=row["ordinal"],
                name=row["name"],
                output_digest=row["output_digest"],
                chain=row["chain"],
                epoch=row["epoch"],
            )
        )
    return tails


def _tip(
    run_id: str, row: DictRow | None, tail: Sequence[RunStep], announced: Sequence[InDoubt]
) -> Checkpoint | CheckpointProblem:
    if row is None:
        message = f"run {run_id!r} has no row in the store"
        return CheckpointProblem(run_id=run_id, kind=ProblemKind.MISSING, message=message)
    if row["state_digest"] != row["found_digest"]:
        message = (
            f"checkpoint {row['checkpoint_no']} of run {run_id!r} has digest "
            f"{row['found_digest']}, recorded was {row['state_digest']}"
        )
        return CheckpointProblem(run_id=run_id, kind=ProblemKind.CORRUPT, message=message)
    number: int | None = row["checkpoint_no"]
    written_at: datetime | None = row["written_at"]
    return Checkpoint(
        run_id=run_id,
        ref=CheckpointRef(run_id=run_id, checkpoint_no=number) if number else None,
        ordinal=row["ordinal"] or 0,
        chain=row["chain"] or chain_origin(run_id, row["input_digest"]),
        newest_no=row["newest_no"] or 0,
        state_digest=row["state_digest"],
        state_bytes=row["state_bytes"] or 0,
        format_version=row["format_version"] or 1,
        written_at=written_at,
        written_by_epoch=row["epoch"],
        code_version=row["code_version"] or "",
        input_digest=row["input_digest"],
        tail=tuple(tail),
        in_doubt=tuple(announced),
    )
