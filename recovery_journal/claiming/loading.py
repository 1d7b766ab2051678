"""Loads all that the worker of a held lease needs, checked before any of its code runs."""

from collections.abc import Sequence

from msgspec import Struct

from recovery_journal.domain.checkpoint import Checkpoint, InDoubt, usable
from recovery_journal.domain.digest import same_codec
from recovery_journal.domain.errors import CodecMissing, PayloadCorrupt, ReducerFailed
from recovery_journal.domain.pipeline import RecoveryContext
from recovery_journal.domain.recovery import Recovery
from recovery_journal.domain.replay import replay_chain
from recovery_journal.recovery.replayer import TailFolding, TailReplayer
from recovery_journal.store.keeping import KeepAlive
from recovery_journal.store.lease import Lease
from recovery_journal.store.runs import RunStore, StoredStep, TailStep
from recovery_journal.store.tips import RunSnapshot
from recovery_journal.values.payload import Value


class Claim(Struct, frozen=True, kw_only=True):
    """A claimed attempt, with all that its worker needs to resume the run.

    `state` is the checkpoint's, None where the start is `input`. `tail` are the run steps recorded
    after it, with their outputs. `folded_state` is the state after the tail, where this process
    knows a reducer for the kind. `in_doubt` are announced run steps that were never recorded: their
    effects may have happened. `context` is None for a fresh attempt.
    """

    lease: Lease
    input: Value
    checkpoint: Checkpoint
    tail: tuple[TailStep, ...] = ()
    state: Value = None
    folded_state: Value = None
    context: RecoveryContext | None = None

    @property
    def in_doubt(self) -> tuple[InDoubt, ...]:
        """Effects that may happen twice, each with its stable key."""
        return self.checkpoint.in_doubt


class ClaimLoading:
    """Loads claims one after the other; each gets its own answer."""

    def __init__(
        self,
        runs: RunStore,
        replayer: TailReplayer,
        folding: TailFolding,
        keep_alive: KeepAlive,
    ) -> None:
        self._runs = runs
        self._replayer = replayer
        self._folding = folding
        self._keep_alive = keep_alive

    def load(self, lease: Lease, recovery: Recovery, kept: RunSnapshot) -> Claim:
        """Load all that a lease's worker needs. Raises `PayloadCorrupt` where it cannot be trusted,
        and `CheckpointTooNew`, `CheckpointTooLarge`, `CodecMissing`, `CodecFailed` or
        `ReducerFailed` where this process cannot load it."""
        tip = usable(kept.tip)
        _compare_chain(recovery, tip)
        stored = self._runs.stored_tail(tip, kept.outputs, self._keep_alive)
        tail = self._runs.tail(tip, stored, self._keep_alive)
        folded = None
        if self._replayer.has_reducer(recovery.granted.kind):
            folded = self._fold(recovery, tip, stored, kept)
        return Claim(
            lease=lease,
            input=self._runs.input(lease.run_id, kept, self._keep_alive),
            checkpoint=tip,
            tail=tail,
            state=self._runs.load_state(tip, kept=kept.state, keep_alive=self._keep_alive),
            folded_state=folded,
            context=recovery.context() if recovery.reloaded else None,
        )

    def _fold(
        self, recovery: Recovery, tip: Checkpoint, tail: Sequence[StoredStep], kept: RunSnapshot
    ) -> Value:
        """The state after the tail, which must equal the one that the recovery's replay found."""
        what = f"the folded state of run {recovery.run_id!r}"
        start = self._replayer.stored_start(tip, kept, self._keep_alive)
        self._keep_alive(tip.state_bytes)
        folded = self._folding.fold(recovery.granted.kind, start, tail, self._keep_alive)
        if folded.is_unreadable:
            raise CodecMissing(what, found=folded.message)
        if folded.state is None or folded.state_digest is None:
            raise ReducerFailed(
                recovery.run_id, error_class=folded.error_class, message=folded.message
            )
        needed = recovery.replayed.state_digest if recovery.replayed else None
        is_comparable = needed is not None and same_codec(folded.state_digest, needed)
        if needed is not None and is_comparable and folded.state_digest != needed:
            raise PayloadCorrupt(
                what,
                found=folded.state_digest,
                needed=needed,
                do="its reducer makes another state of the same run steps: make it deterministic",
            )
        self._keep_alive(len(folded.state))
        with self._keep_alive.decoding(len(folded.state)):
            return self._runs.values.decode_digested(folded.state, what=what)


def _compare_chain(recovery: Recovery, tip: Checkpoint) -> None:
    """The chain must end at the digest that the recovery's replay found, before user code runs."""
    replayed = recovery.replayed
    if replayed is None or tip.tip_ordinal > replayed.to_ordinal:
        return  # not lost since: its worker continues
    is_shorter = tip.tip_ordinal < replayed.to_ordinal
    replay = None if is_shorter else replay_chain(recovery.attempt_id, tip, None)
    found = replay.digest if replay else tip.progress.digest
    if found != replayed.digest:
        raise PayloadCorrupt(f"the tail of run {tip.run_id!r}", found=found, needed=replayed.digest)
