"""The built-in store of runs: inputs, run steps, announcements and checkpoints."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointProblem,
    CheckpointRef,
)
from recovery_journal.domain.errors import InvalidInput, PayloadCorrupt, RunMismatch, RunPruned
from recovery_journal.domain.lease import Progress
from recovery_journal.postgres.database import ONE_SNAPSHOT, Database, one
from recovery_journal.store.keeping import KEEP_NOTHING, KeepAlive
from recovery_journal.store.tips import (
    INLINE_BYTES,
    RunSnapshot,
    read_end,
    read_kept,
    read_sizes,
    step_key,
)
from recovery_journal.values.payload import BUILT_IN, Payload, Value, Values, require_digest

LARGEST_PIECE_BYTES: Final = 1024 * 1024
SMALLEST_PIECE_BYTES: Final = 16 * 1024
FAST_PIECE_S: Final = 0.1
SLOW_PIECE_S: Final = 0.5
"""The piece after a fast one is twice as large, the one after a slow one half as large. It
does not shrink sooner, because each piece of a compressed value makes the server read all bytes
before it too."""
STEPS_AT_ONCE: Final = 32

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

INPUT = """
SELECT octet_length(input) AS size, input_digest, pruned_at FROM runs WHERE run_id = %(run_id)s
"""

INPUT_PIECE = """
SELECT substring(input FROM %(start)s FOR %(size)s) AS piece FROM runs WHERE run_id = %(run_id)s
"""

OUTPUTS = """
SELECT ordinal,
    name,
    octet_length(output) AS size,
    CASE WHEN octet_length(output) <= %(inline_bytes)s THEN output END AS output
FROM run_steps
WHERE run_id = %(run_id)s AND ordinal > %(after)s
ORDER BY ordinal
LIMIT %(limit)s
"""

OUTPUT_PIECE = """
SELECT substring(output FROM %(start)s FOR %(size)s) AS piece
FROM run_steps
WHERE run_id = %(run_id)s AND ordinal = %(ordinal)s
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
    """Runs and what their workers recorded."""

    def __init__(self, database: Database, *, state_bytes: int, values: Values = BUILT_IN) -> None:
        self._database = database
        self._state_bytes = state_bytes
        self.values = values

    def open_run(self, cursor: Cursor[DictRow], run_id: str, kind: str, given: Payload) -> str:
        """Create the run or find it, and lock it; return the digest of its input as it is stored.
        Raises `RunMismatch` for another kind or input, and `RunPruned`."""
        run = {"run_id": run_id, "kind": kind, "input_digest": given.digest}
        cursor.execute(OPEN_RUN, {**run, "input": given.encoded})
        found = one(cursor.execute(LOCK_RUN, run))
        _require_unpruned(run_id, found)
        if found["kind"] != kind:
            raise RunMismatch(run_id, what="kind", found=repr(found["kind"]), given=repr(kind))
        if found["input_digest"] != given.digest and not self._is_input(cursor, run_id, given):
            raise RunMismatch(run_id, what="input", found=found["input_digest"], given=given.digest)
        return str(found["input_digest"])

    def _is_input(self, cursor: Cursor[DictRow], run_id: str, given: Payload) -> bool:
        """Whether the given input equals the stored one up to the order of dict keys."""
        what = f"the input of run {run_id!r}"
        row = cursor.execute(INPUT, {"run_id": run_id}).fetchone()
        assert row is not None, f"run {run_id!r} is locked"
        pieces = _pieces(cursor, INPUT_PIECE, {"run_id": run_id}, row["size"])
        stored = require_digest(b"".join(pieces), digest=row["input_digest"], what=what)
        left, right = (
            self.values.canonical_digest(
                self.values.decode_digested(encoded, what=what),
                name="input",
            )
            for encoded in (stored, given.encoded)
        )
        return left == right

    def tips(
        self, runs: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> Sequence[Checkpoint | CheckpointProblem]:
        """The newest checkpoint of each run and its tail; the answer for a run whose checkpoint
        cannot be used is its problem."""
        return [kept.tip for kept in self.kept(runs, cursor)]

    def end(self, run_id: str, cursor: Cursor[DictRow]) -> Progress:
        """How far a run has come. Raises `PayloadCorrupt`, `CheckpointTooNew`,
        `CheckpointTooLarge`."""
        return read_end(cursor, run_id, limit_bytes=self._state_bytes).progress

    def kept(
        self, runs: Sequence[str], cursor: Cursor[DictRow] | None = None
    ) -> Sequence[RunSnapshot]:
        """The tips of these runs and those of their payloads that are small: one read for all of
        them.

        Without the cursor of a transaction that has locked their leases, all are read as of one
        moment: a worker whose lease is over may read while the next one writes, and must not be
        given the tail of another checkpoint than the one that it is given.
        """
        if cursor is None:
            with self._database.transaction() as own:
                own.execute(ONE_SNAPSHOT)
                return read_kept(own, runs, limit_bytes=self._state_bytes)
        return read_kept(cursor, runs, limit_bytes=self._state_bytes)

    def state(self, ref: CheckpointRef, *, limit_bytes: int) -> Iterator[bytes]:
        """The encoded state in pieces of at most a megabyte."""
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
            yield from _pieces(cursor, STATE_PIECE, wanted, size)

    def input(
        self, run_id: str, kept: RunSnapshot | None = None, keep_alive: KeepAlive = KEEP_NOTHING
    ) -> Value:
        """The run's input, decoded, from the payloads at hand or from the store. Raises as
        `Values.decode`."""
        stored = self.stored_input(run_id, kept, keep_alive)
        keep_alive(len(stored))
        with keep_alive.decoding(len(stored)):
            return self.values.decode_digested(stored, what=f"the input of run {run_id!r}")

    def stored_input(
        self, run_id: str, kept: RunSnapshot | None = None, keep_alive: KeepAlive = KEEP_NOTHING
    ) -> bytes:
        """The run's input as it is stored. Raises `PayloadCorrupt`, and `RunPruned` to a worker
        whose attempt has ended."""
        what = f"the input of run {run_id!r}"
        if kept is not None and kept.input is not None and isinstance(kept.tip, Checkpoint):
            return require_digest(kept.input, digest=kept.tip.input_digest, what=what)
        with self._database.cursor() as cursor:
            row = cursor.execute(INPUT, {"run_id": run_id}).fetchone()
            if row is None:  # after a restore that discarded the run
                raise PayloadCorrupt(what, found="of nothing: the run has no row", needed="its own")
            _require_unpruned(run_id, row)
            pieces = _pieces(cursor, INPUT_PIECE, {"run_id": run_id}, row["size"])
            stored = _joined(pieces, keep_alive)
        return require_digest(stored, digest=row["input_digest"], what=what)

    def load_state(
        self, tip: Checkpoint, *, kept: bytes | None = None, keep_alive: KeepAlive = KEEP_NOTHING
    ) -> Value:
        """The saved state, decoded, from the bytes `kept` at hand or from the store; None where
        the start is the input. Raises as `Values.decode`."""
        if tip.ref is None or tip.state_digest is None:
            return None
        stored = self.stored_state(tip, kept, keep_alive)
        keep_alive(len(stored))
        with keep_alive.decoding(len(stored)):
            return self.values.decode_digested(stored, what=_state_of(tip))

    def stored_state(
        self, tip: Checkpoint, kept: bytes | None = None, keep_alive: KeepAlive = KEEP_NOTHING
    ) -> bytes:
        """The saved state as it is stored. Raises `PayloadCorrupt`."""
        if kept is not None:
            return kept
        assert tip.ref is not None, "it has a state"
        assert tip.state_digest is not None, "it has a state"
        stored = _joined(self.state(tip.ref, limit_bytes=self._state_bytes), keep_alive)
        return require_digest(stored, digest=tip.state_digest, what=_state_of(tip))

    def tail(
        self,
        tip: Checkpoint,
        stored: Sequence[StoredStep],
        keep_alive: KeepAlive = KEEP_NOTHING,
    ) -> tuple[TailStep, ...]:
        """The tail with its outputs, decoded. Raises as `Values.decode_digested`."""
        with keep_alive.decoding(sum(len(step.output) for step in stored)):
            return tuple(self._decoded(tip, step, keep_alive) for step in stored)

    def _decoded(self, tip: Checkpoint, step: StoredStep, keep_alive: KeepAlive) -> TailStep:
        keep_alive(len(step.output))
        what = _output_of(tip, step.ordinal)
        output = self.values.decode_digested(step.output, what=what)
        return TailStep(ordinal=step.ordinal, name=step.name, output=output)

    def stored_tail(
        self,
        tip: Checkpoint,
        kept: Sequence[bytes | None] | None = None,
        keep_alive: KeepAlive = KEEP_NOTHING,
    ) -> tuple[StoredStep, ...]:
        """The tail with its outputs as they are stored, from those `kept` at hand or from the
        store. They must be those whose digests the tip carries. Raises `PayloadCorrupt`."""
        if kept is not None and len(kept) == len(tip.tail) and None not in kept:
            return tuple(
                StoredStep(step.ordinal, step.name, output or b"")
                for step, output in zip(tip.tail, kept, strict=True)
            )
        digests = {step.ordinal: step.output_digest for step in tip.tail}
        return tuple(
            StoredStep(
                ordinal,
                name,
                require_digest(output, digest=digests[ordinal], what=_output_of(tip, ordinal)),
            )
            for ordinal, name, output in self._outputs(tip, keep_alive)
            if ordinal in digests
        )

    def sizes(self, runs: Sequence[str]) -> dict[str, int]:
        """How many bytes the next worker of each run has to load."""
        with self._database.cursor() as cursor:
            return read_sizes(cursor, runs)

    def _outputs(self, tip: Checkpoint, keep_alive: KeepAlive) -> Iterator[tuple[int, str, bytes]]:
        """The encoded outputs after a checkpoint, a few at a time, and large ones in pieces."""
        run = {"run_id": tip.run_id}
        wanted = {**run, "inline_bytes": INLINE_BYTES, "limit": STEPS_AT_ONCE}
        after = tip.ordinal
        with self._database.cursor() as cursor:
            while rows := cursor.execute(OUTPUTS, {**wanted, "after": after}).fetchall():
                for row in rows:
                    after, output = row["ordinal"], row["output"]
                    if output is None:
                        one = {**run, "ordinal": after}
                        pieces = _pieces(cursor, OUTPUT_PIECE, one, row["size"])
                        output = _joined(pieces, keep_alive)
                    yield after, row["name"], output
                keep_alive(0)

    def set_aside(self, cursor: Cursor[DictRow], run_id: str) -> None:
        """Fall back from the newest checkpoint to its parent, as a person chose."""
        cursor.execute(SET_ASIDE, {"run_id": run_id})

    def restart_here(
        self, cursor: Cursor[DictRow], tip: Checkpoint, *, code_version: str, epoch: int
    ) -> Checkpoint:
        """Start from the input again after the last recorded run step, as a person chose; the tip
        is then a checkpoint without a state.

        No run step is lost or numbered twice: the numbering of run steps continues, so the keys of
        the effects change.
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
        """Set the lease row to what the tip says, where a person accepted the tip as it is."""
        at = {
            "attempt_id": attempt_id,
            "ordinal": tip.progress.ordinal,
            "chain": tip.progress.digest,
            "checkpoint_count": tip.progress.checkpoint_count,
        }
        cursor.execute(REALIGN, at)


def _pieces(
    cursor: Cursor[DictRow], statement: str, wanted: dict[str, Any], size: int
) -> Iterator[bytes]:
    """A stored value, in pieces that are small enough to be read quickly."""
    start, step = 1, 4 * SMALLEST_PIECE_BYTES
    while start <= size:
        asked_at = time.monotonic()
        row = cursor.execute(statement, {**wanted, "start": start, "size": step}).fetchone()
        if row is None or not row["piece"]:  # pruned meanwhile: the digest will not match
            return
        yield bytes(row["piece"])
        start += step
        took_s = time.monotonic() - asked_at
        if took_s < FAST_PIECE_S:
            step = min(step * 2, LARGEST_PIECE_BYTES)
        elif took_s > SLOW_PIECE_S:
            step = max(step // 2, SMALLEST_PIECE_BYTES)


def _joined(pieces: Iterable[bytes], keep_alive: KeepAlive) -> bytes:
    """All pieces, ready to be decoded in one call."""
    found = []
    for piece in pieces:
        found.append(piece)
        keep_alive(0)
    keep_alive(sum(map(len, found)))
    return b"".join(found)


def _require_unpruned(run_id: str, row: DictRow) -> None:
    if row["pruned_at"] is not None:
        raise RunPruned(run_id, pruned_at=f"{row['pruned_at']:%Y-%m-%d %H:%M:%S} UTC")


def _output_of(tip: Checkpoint, ordinal: int) -> str:
    return f"the output of run step {step_key(tip.run_id, ordinal)}"


def _state_of(tip: Checkpoint) -> str:
    number = tip.ref.checkpoint_no if tip.ref else 0
    return f"checkpoint {number} of run {tip.run_id!r}"
