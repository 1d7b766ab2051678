"""The built-in store of runs: inputs, run steps, announcements and checkpoints."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from domain.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointProblem,
    CheckpointRef,
)
from domain.errors import InvalidInput, PayloadCorrupt, RunMismatch, RunPruned
from domain.lease import Progress
from recovery_journal.leases.tips import Kept, read_end, read_kept, step_key
from recovery_journal.payload import BUILT_IN, Payload, Value, Values, require_digest
from recovery_journal.postgres.database import ONE_SNAPSHOT, Database

STATE_PIECE_BYTES: Final = 1024 * 1024

OPEN_RUN = """
INSERT INTO runs (run_id, kind, input, input_digest)
VALUES (%(run_id)s, %(kind)s, %(input)s, %(input_digest)s)
ON CONFLICT (run_id) DO NOTHING
"""

LOCK_RUN = """
SELECT kind, input_digest, pruned_at
FROM runs
WHERE run_id = %(run_id)s
FOR NO KEY UPDATE
"""

STATE_PIECE = """
SELECT substring(state FROM %(start)s FOR %(size)s) AS piece
FROM checkpoints
WHERE run_id = %(run_id)s AND checkpoint_no = %(checkpoint_no)s
"""

STATE_SIZE = """
SELECT octet_length(state) AS size
FROM checkpoints
WHERE run_id = %(run_id)s AND checkpoint_no = %(checkpoint_no)s
"""

INPUT = "SELECT input, input_digest, pruned_at FROM runs WHERE run_id = %(run_id)s"

OUTPUTS = """
SELECT ordinal, name, output, chain
FROM run_steps
WHERE run_id = %(run_id)s AND ordinal > %(after)s
ORDER BY ordinal
"""

SET_ASIDE = """
UPDATE checkpoints
SET is_void = true
WHERE run_id = %(run_id)s
    AND checkpoint_no = (
        SELECT max(checkpoint_no) FROM checkpoints WHERE run_id = %(run_id)s AND NOT is_void
    )
"""

RESTART_HERE = """
INSERT INTO checkpoints (
    run_id, checkpoint_no, ordinal, chain, format_version, code_version, epoch
)
VALUES (
    %(run_id)s, %(checkpoint_no)s, %(ordinal)s, %(chain)s, %(format_version)s, %(code_version)s,
    %(epoch)s
)
"""

REALIGN = """
UPDATE leases
SET ordinal = %(ordinal)s, chain = %(chain)s, checkpoint_count = %(checkpoint_count)s
WHERE attempt_id = %(attempt_id)s
"""


class TailStep(Struct, frozen=True, kw_only=True):
    """One recorded run step after the checkpoint, with its output."""

    ordinal: int
    name: str
    output: Value


class StoredStep(NamedTuple):
    """One recorded run step after the checkpoint, with its output as it is stored."""

    ordinal: int
    name: str
    output: bytes


class RunStore:
    """Runs and what their workers recorded. Implements the `CheckpointStore` port."""

    def __init__(self, database: Database, *, state_bytes: int, values: Values = BUILT_IN) -> None:
        self._database = database
        self._state_bytes = state_bytes
        self.values = values

    def open_run(self, cursor: Cursor[DictRow], run_id: str, kind: str, given: Payload) -> str:
        """Make the run or find it, locked; the digest of its input as it is stored. Raises
        `RunMismatch` for another kind or input, and `RunPruned`."""
        run = {"run_id": run_id, "kind": kind, "input_digest": given.digest}
        cursor.execute(OPEN_RUN, {**run, "input": given.encoded})
        found = cursor.execute(LOCK_RUN, run).fetchone()
        assert found is not None
        _require_unpruned(run_id, found)
        if found["kind"] != kind:
            raise RunMismatch(run_id, what="kind", found=repr(found["kind"]), given=repr(kind))
        if found["input_digest"] != given.digest and not self._is_input(cursor, run_id, given):
            raise RunMismatch(run_id, what="input", found=found["input_digest"], given=given.digest)
        return str(found["input_digest"])

    def _is_input(self, cursor: Cursor[DictRow], run_id: str, given: Payload) -> bool:
        """Whether the given input equals the stored one up to the order of dict keys."""
        row = cursor.execute(INPUT, {"run_id": run_id}).fetchone()
        if row is None or row["input"] is None:
            return False
        stored = require_digest(
            row["input"], digest=row["input_digest"], what=f"the input of run {run_id!r}"
        )
        left, right = (
            self.values.canonical_digest(
                self.values.decode_digested(encoded, what=f"the input of run {run_id!r}"),
                name="input",
            )
            for encoded in (stored, given.encoded)
        )
        return left == right

    def tips(
        self, runs: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> Sequence[Checkpoint | CheckpointProblem]:
        """The newest checkpoint of each run and its tail; what is wrong with one is the element's
        answer."""
        return [kept.tip for kept in self.kept(runs, cursor)]

    def end(self, run_id: str, cursor: Cursor[DictRow]) -> Progress:
        """How far a run has come. Raises `PayloadCorrupt`, `CheckpointTooNew`,
        `CheckpointTooLarge`."""
        return read_end(cursor, run_id, limit_bytes=self._state_bytes).progress

    def kept(self, runs: Sequence[str], cursor: Cursor[DictRow] | None = None) -> Sequence[Kept]:
        """The tips of these runs with those payloads that are small: one read for all of them.

        Without the cursor of a transaction that has locked their leases, all as of one moment: a
        worker whose lease is over reads while the next one writes, and must not be handed the
        tail of another checkpoint than the one it is given.
        """
        if cursor is None:
            with self._database.transaction() as own:
                own.execute(ONE_SNAPSHOT)
                return read_kept(own, runs, limit_bytes=self._state_bytes)
        return read_kept(cursor, runs, limit_bytes=self._state_bytes)

    def state(self, ref: CheckpointRef, *, limit_bytes: int) -> Iterator[bytes]:
        """The encoded state in pieces of a megabyte."""
        wanted = {"run_id": ref.run_id, "checkpoint_no": ref.checkpoint_no}
        with self._database.cursor() as cursor:
            row = cursor.execute(STATE_SIZE, wanted).fetchone()
            size = (row["size"] if row else None) or 0
            if size > limit_bytes:
                raise InvalidInput(
                    f"the state of checkpoint {ref.checkpoint_no} of run {ref.run_id!r}",
                    found=f"{size:,} bytes",
                    needed=f"at most {limit_bytes:,} bytes",
                    do="raise the limit",
                )
            for start in range(1, size + 1, STATE_PIECE_BYTES):
                piece = cursor.execute(
                    STATE_PIECE, {**wanted, "start": start, "size": STATE_PIECE_BYTES}
                ).fetchone()
                if piece is not None:
                    yield bytes(piece["piece"])

    def input(self, run_id: str, kept: Kept | None = None) -> Value:
        """The run's input, decoded, from what is at hand or from the store. Raises as
        `Values.decode`."""
        return self.values.decode_digested(
            self.stored_input(run_id, kept), what=f"the input of run {run_id!r}"
        )

    def stored_input(self, run_id: str, kept: Kept | None = None) -> bytes:
        """The run's input as it is stored. Raises `PayloadCorrupt`, and `RunPruned` to a
        worker whose attempt has ended."""
        what = f"the input of run {run_id!r}"
        if kept is not None and kept.input is not None and isinstance(kept.tip, Checkpoint):
            return require_digest(kept.input, digest=kept.tip.input_digest, what=what)
        with self._database.cursor() as cursor:
            row = cursor.execute(INPUT, {"run_id": run_id}).fetchone()
        if row is None:  # after a restore that discarded the run
            raise PayloadCorrupt(what, found="of nothing: the run has no row", needed="its own")
        _require_unpruned(run_id, row)
        return require_digest(row["input"], digest=row["input_digest"], what=what)

    def load_state(self, tip: Checkpoint, *, kept: bytes | None = None) -> Value:
        """The saved state, decoded, from the bytes `kept` at hand or from the store; None where
        the start is the input. Raises as `Values.decode`."""
        if tip.ref is None or tip.state_digest is None:
            return None
        return self.values.decode_digested(self.stored_state(tip, kept), what=_state_of(tip))

    def stored_state(self, tip: Checkpoint, kept: bytes | None = None) -> bytes:
        """The saved state as it is stored. Raises `PayloadCorrupt`."""
        if kept is not None:
            return kept
        assert tip.ref is not None, "it has a state"
        assert tip.state_digest is not None, "it has a state"
        stored = b"".join(self.state(tip.ref, limit_bytes=self._state_bytes))
        return require_digest(stored, digest=tip.state_digest, what=_state_of(tip))

    def tail(self, tip: Checkpoint, stored: Sequence[StoredStep]) -> tuple[TailStep, ...]:
        """The tail with its outputs, decoded. Raises as `Values.decode_digested`."""
        return tuple(
            TailStep(
                ordinal=step.ordinal,
                name=step.name,
                output=self.values.decode_digested(step.output, what=_output_of(tip, step.ordinal)),
            )
            for step in stored
        )

    def stored_tail(
        self, tip: Checkpoint, kept: Sequence[bytes | None] | None = None
    ) -> tuple[StoredStep, ...]:
        """The tail with its outputs as they are stored, from those `kept` at hand or from the
        store. They must be those whose digests the tip carries. Raises `PayloadCorrupt`."""
        if kept is not None and len(kept) == len(tip.tail) and None not in kept:
            return tuple(
                StoredStep(step.ordinal, step.name, output or b"")
                for step, output in zip(tip.tail, kept, strict=True)
            )
        digests = {step.ordinal: step.output_digest for step in tip.tail}
        with self._database.cursor() as cursor:
            rows = cursor.execute(OUTPUTS, {"run_id": tip.run_id, "after": tip.ordinal}).fetchall()
        return tuple(
            StoredStep(
                ordinal,
                row["name"],
                require_digest(
                    row["output"], digest=digests[ordinal], what=_output_of(tip, ordinal)
                ),
            )
            for row in rows
            if (ordinal := row["ordinal"]) in digests
        )

    def set_aside(self, cursor: Cursor[DictRow], run_id: str) -> None:
        """Fall back from the newest checkpoint to its parent, as a person chose."""
        cursor.execute(SET_ASIDE, {"run_id": run_id})

    def restart_here(
        self, cursor: Cursor[DictRow], tip: Checkpoint, *, code_version: str, epoch: int
    ) -> Checkpoint:
        """Start from the input again after the last recorded run step, as a person chose; the tip
        is then a checkpoint without a state.

        No run step is lost or numbered twice: the keys of the effects go on, and so change.
        """
        marker = {
            "run_id": tip.run_id,
            "checkpoint_no": tip.newest_no + 1,
            "ordinal": tip.tip_ordinal,
            "chain": tip.progress.digest,
            "format_version": FORMAT_VERSION,
            "code_version": code_version,
            "epoch": epoch,
        }
        cursor.execute(RESTART_HERE, marker)
        started = self.tips([tip.run_id], cursor)[0]
        assert isinstance(started, Checkpoint), "a checkpoint without a state cannot be damaged"
        return started

    def realign(self, cursor: Cursor[DictRow], attempt_id: str, tip: Checkpoint) -> None:
        """Let the lease row say what the tip says, where a person accepted the tip as it is."""
        at = {
            "attempt_id": attempt_id,
            "ordinal": tip.progress.ordinal,
            "chain": tip.progress.digest,
            "checkpoint_count": tip.progress.checkpoint_count,
        }
        cursor.execute(REALIGN, at)


def _require_unpruned(run_id: str, row: DictRow) -> None:
    if row["pruned_at"] is not None:
        raise RunPruned(run_id, pruned_at=f"{row['pruned_at']:%Y-%m-%d %H:%M:%S} UTC")


def _output_of(tip: Checkpoint, ordinal: int) -> str:
    return f"the output of run step {step_key(tip.run_id, ordinal)}"


def _state_of(tip: Checkpoint) -> str:
    number = tip.ref.checkpoint_no if tip.ref else 0
    return f"checkpoint {number} of run {tip.run_id!r}"
