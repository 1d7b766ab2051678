"""Reads the tips of runs: the newest checkpoint of each, and the run steps after it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow, TupleRow, args_row, tuple_row

from recovery_journal.domain.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointProblem,
    CheckpointRef,
    InDoubt,
    ProblemKind,
    RunStep,
    usable,
)
from recovery_journal.domain.digest import chain_origin, payload_digest
from recovery_journal.postgres.arrays import array

INLINE_BYTES: Final = 8 * 1024
"""Payloads up to this size are read together with the tip; larger ones when they are needed."""

# Digests are computed from the stored bytes. For small payloads this process computes them, because
# it has to read them anyway to fold the tail or to hand it out; for large ones the server does, so
# that nothing large is transferred. A state above the limit is not even read.
NEWEST_CHECKPOINTS = """
SELECT runs.run_id,
    runs.input_digest,
    CASE WHEN octet_length(runs.input) <= %(inline_bytes)s THEN runs.input END AS input,
    newest.checkpoint_no,
    newest.ordinal,
    newest.chain,
    newest.state_digest,
    octet_length(newest.state) AS state_bytes,
    CASE WHEN octet_length(newest.state) <= %(inline_bytes)s THEN newest.state END AS state,
    CASE
        WHEN octet_length(newest.state) > %(inline_bytes)s
            AND octet_length(newest.state) <= %(limit_bytes)s
        THEN 'cs1:' || encode(sha256(newest.state), 'hex')
    END AS found_digest,
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
WHERE runs.run_id = ANY(%(run_ids)s::text[])
"""

TAILS = """
SELECT run_id,
    run_steps.ordinal,
    name,
    CASE WHEN octet_length(output) <= %(inline_bytes)s THEN output END AS output,
    CASE
        WHEN octet_length(output) > %(inline_bytes)s
        THEN 'cs1:' || encode(sha256(output), 'hex')
    END AS output_digest,
    chain,
    epoch
FROM unnest(%(run_ids)s::text[]) AS wanted(run_id)
LEFT JOIN LATERAL (
    SELECT checkpoints.ordinal
    FROM checkpoints
    WHERE checkpoints.run_id = wanted.run_id AND NOT is_void
    ORDER BY checkpoint_no DESC
    LIMIT 1
) AS tip ON true
JOIN run_steps USING (run_id)
WHERE run_steps.ordinal > coalesce(tip.ordinal, 0)
ORDER BY run_id, run_steps.ordinal
"""

# The bytes that a run's next worker has to load, without reading them: of a large value the server
# reads only the header.
SIZES = """
SELECT wanted.run_id,
    coalesce(octet_length(runs.input), 0)
        + coalesce(tip.bytes, 0)
        + coalesce(tail.bytes, 0) AS bytes
FROM unnest(%(run_ids)s::text[]) AS wanted(run_id)
JOIN runs ON runs.run_id = wanted.run_id
LEFT JOIN LATERAL (
    SELECT checkpoints.ordinal, octet_length(state) AS bytes
    FROM checkpoints
    WHERE checkpoints.run_id = wanted.run_id AND NOT is_void
    ORDER BY checkpoint_no DESC
    LIMIT 1
) AS tip ON true
LEFT JOIN LATERAL (
    SELECT sum(octet_length(output)) AS bytes
    FROM run_steps
    WHERE run_steps.run_id = wanted.run_id AND run_steps.ordinal > coalesce(tip.ordinal, 0)
) AS tail ON true
"""

# Of the tail alone: no worker starts from a run step before the checkpoint any more.
LAST_STEP = """
SELECT run_id,
    ordinal,
    name,
    NULL::bytea AS output,
    '' AS output_digest,
    chain,
    epoch
FROM run_steps
WHERE run_id = %(run_id)s
    AND ordinal > coalesce(
        (
            SELECT ordinal
            FROM checkpoints
            WHERE run_id = %(run_id)s AND NOT is_void
            ORDER BY checkpoint_no DESC
            LIMIT 1
        ),
        0
    )
ORDER BY ordinal DESC
LIMIT 1
"""

ANNOUNCED = """
SELECT run_id, ordinal, name
FROM announcements
WHERE run_id = ANY(%(run_ids)s::text[])
    AND NOT EXISTS (
        SELECT
        FROM run_steps
        WHERE run_steps.run_id = announcements.run_id
            AND run_steps.ordinal = announcements.ordinal
    )
ORDER BY run_id, ordinal
"""


class RunSnapshot(Struct, frozen=True, kw_only=True, gc=False):
    """The stored state of one run: its tip, and those payloads that were small enough to be read
    with it, as they are stored. `outputs` are those of the tip's tail, in its order."""

    tip: Checkpoint | CheckpointProblem
    input: bytes | None = None
    state: bytes | None = None
    outputs: tuple[bytes | None, ...] = ()


class _Newest(NamedTuple):
    """A row of `NEWEST_CHECKPOINTS`."""

    run_id: str
    input_digest: str
    input: bytes | None
    checkpoint_no: int | None
    ordinal: int | None
    chain: str | None
    state_digest: str | None
    state_bytes: int | None
    state: bytes | None
    found_digest: str | None
    format_version: int | None
    code_version: str | None
    epoch: int | None
    written_at: datetime | None
    newest_no: int | None


class _Tail(NamedTuple):
    """The run steps after a checkpoint, and their outputs."""

    steps: list[RunStep]
    outputs: list[bytes | None]


def read_kept(
    cursor: Cursor[DictRow], runs: Sequence[str], *, limit_bytes: int
) -> list[RunSnapshot]:
    """The tip of each run and its small payloads, in the order of the request; the answer for a run
    with a problem is that problem."""
    wanted = _wanted(runs, limit_bytes)
    connection = cursor.connection
    # The three queries are sent together, with one wait for all.
    with (
        connection.pipeline(),
        connection.cursor(binary=True, row_factory=args_row(_Newest)) as newest,
        connection.cursor(binary=True, row_factory=tuple_row) as steps,
        connection.cursor() as announcements,
    ):
        newest.execute(NEWEST_CHECKPOINTS, wanted)
        steps.execute(TAILS, wanted)
        announcements.execute(ANNOUNCED, wanted)
        found = {row.run_id: row for row in newest.fetchall()}
        tails = _tails(steps, found)
        announced = _announced(announcements)
    return [
        _kept(run_id, found.get(run_id), tails, announced.get(run_id, ()), limit_bytes)
        for run_id in runs
    ]


def read_sizes(cursor: Cursor[DictRow], runs: Sequence[str]) -> dict[str, int]:
    """How many bytes the next worker of each run has to load."""
    with cursor.connection.cursor(binary=True, row_factory=tuple_row) as sizes:
        return dict(sizes.execute(SIZES, {"run_ids": array(runs)}).fetchall())


def read_end(cursor: Cursor[DictRow], run_id: str, *, limit_bytes: int) -> Checkpoint:
    """Read how far a run has come: its newest checkpoint and, as the tail, only its last run step.

    Nothing in between is read, because a run may have been attempted ten thousand times without a
    checkpoint. Raises `PayloadCorrupt`, `CheckpointTooNew`, `CheckpointTooLarge`.
    """
    wanted = {**_wanted([run_id], limit_bytes), "run_id": run_id}
    with (
        cursor.connection.cursor(binary=True, row_factory=args_row(_Newest)) as newest,
        cursor.connection.cursor(binary=True, row_factory=tuple_row) as steps,
    ):
        row = newest.execute(NEWEST_CHECKPOINTS, wanted).fetchone()
        tails = _tails(steps.execute(LAST_STEP, wanted), [run_id])
    return usable(_kept(run_id, row, tails, (), limit_bytes).tip)


def _wanted(runs: Sequence[str], limit_bytes: int) -> dict[str, Any]:
    return {"run_ids": array(runs), "inline_bytes": INLINE_BYTES, "limit_bytes": limit_bytes}


def step_key(run_id: str, ordinal: int) -> str:
    """The stable key of a run step's effect."""
    return f"{run_id}/{ordinal}"


def _tails(steps: Cursor[TupleRow], runs: Iterable[str]) -> dict[str, _Tail]:
    tails: dict[str, _Tail] = {run_id: _Tail([], []) for run_id in runs}
    for run_id, ordinal, name, output, digest, link, epoch in steps.fetchall():
        tail = tails[run_id]
        tail.outputs.append(output)
        tail.steps.append(
            RunStep(
                ordinal=ordinal,
                name=name,
                output_digest=payload_digest(output) if digest is None else digest,
                chain=link,
                epoch=epoch,
            )
        )
    return tails


def _announced(cursor: Cursor[DictRow]) -> dict[str, list[InDoubt]]:
    announced: dict[str, list[InDoubt]] = defaultdict(list)
    for row in cursor.fetchall():
        key = step_key(row["run_id"], row["ordinal"])
        announced[row["run_id"]].append(InDoubt(key=key, name=row["name"]))
    return announced


def _kept(
    run_id: str,
    row: _Newest | None,
    tails: dict[str, _Tail],
    announced: Sequence[InDoubt],
    limit_bytes: int,
) -> RunSnapshot:
    if row is None:
        message = f"run {run_id!r} has no row in the store"
        return RunSnapshot(
            tip=CheckpointProblem(run_id=run_id, kind=ProblemKind.MISSING, message=message)
        )
    problem = _problem(row, limit_bytes)
    if problem is not None:
        return RunSnapshot(tip=problem)
    tail = tails[run_id]
    tip = _checkpoint(row, tuple(tail.steps), tuple(announced))
    return RunSnapshot(tip=tip, input=row.input, state=row.state, outputs=tuple(tail.outputs))


def _problem(row: _Newest, limit_bytes: int) -> CheckpointProblem | None:
    """Why this process cannot use a run's newest checkpoint. A checkpoint of a newer program is not
    inspected: its digest may be of another kind."""
    what = f"checkpoint {row.checkpoint_no} of run {row.run_id!r}"
    if (row.format_version or 0) > FORMAT_VERSION:
        kind = ProblemKind.TOO_NEW
        message = f"{what} is in format {row.format_version}, known are up to {FORMAT_VERSION}"
    elif (row.state_bytes or 0) > limit_bytes:
        kind = ProblemKind.TOO_LARGE
        message = f"{what} has {row.state_bytes:,} bytes, the limit is {limit_bytes:,} bytes"
    else:
        found = row.found_digest if row.state is None else payload_digest(row.state)
        if row.state_digest == found:
            return None
        kind = ProblemKind.CORRUPT
        message = f"{what} has digest {found}, recorded was {row.state_digest}"
    return CheckpointProblem(run_id=row.run_id, kind=kind, message=message)


def _checkpoint(
    row: _Newest, tail: tuple[RunStep, ...], announced: tuple[InDoubt, ...]
) -> Checkpoint:
    number = row.checkpoint_no
    return Checkpoint(
        run_id=row.run_id,
        ref=CheckpointRef(run_id=row.run_id, checkpoint_no=number) if number else None,
        ordinal=row.ordinal or 0,
        chain=row.chain or chain_origin(row.run_id, row.input_digest),
        newest_no=row.newest_no or 0,
        state_digest=row.state_digest,
        state_bytes=row.state_bytes or 0,
        format_version=row.format_version or FORMAT_VERSION,
        written_at=row.written_at,
        written_by_epoch=row.epoch,
        code_version=row.code_version or "",
        input_digest=row.input_digest,
        tail=tail,
        in_doubt=announced,
    )
