"""Saved states of a run, the run steps after them, and the tip that both form."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from recovery_journal.domain.bounds import Number
from recovery_journal.domain.errors import CheckpointTooLarge, CheckpointTooNew, PayloadCorrupt
from recovery_journal.domain.lease import Progress

FORMAT_VERSION: Final = 1
"""The format in which this program writes checkpoints, and the newest format that it reads."""


class RunStep(Struct, frozen=True, kw_only=True, gc=False):
    """One recorded unit of a run's own work: its output's digest and the chain after it."""

    ordinal: int
    name: str
    output_digest: str
    chain: str
    epoch: int


class CheckpointRef(Struct, frozen=True, kw_only=True, gc=False):
    """Names one checkpoint of a run. `native` is a foreign store's own address."""

    run_id: str
    checkpoint_no: Number
    native: str | None = None


class InDoubt(Struct, frozen=True, kw_only=True, gc=False):
    """A run step announced before its effect and never recorded: it may happen twice."""

    key: str
    name: str


class Checkpoint(Struct, frozen=True, kw_only=True, gc=False):
    """The newest saved state of a run (or its input, where `ref` is None) and the tail after it.

    `ordinal` and `chain` are the place in the run's chain where the state was saved. `state_bytes`
    is the size of the encoded state. The tail is in order of ordinal and holds no outputs.
    `newest_no` is the number of the last checkpoint ever kept, including one that a person has set
    aside.
    """

    run_id: str
    ref: CheckpointRef | None
    ordinal: int
    chain: str
    newest_no: int = 0
    state_digest: str | None = None
    state_bytes: int = 0
    format_version: int = FORMAT_VERSION
    written_at: datetime | None = None
    written_by_epoch: int | None = None
    code_version: str = ""
    input_digest: str = ""
    tail: tuple[RunStep, ...] = ()
    in_doubt: tuple[InDoubt, ...] = ()
    is_terminal: bool = False
    is_waiting: bool = False

    @property
    def tip_ordinal(self) -> int:
        """The ordinal of the last recorded run step, whether or not it follows the saved state."""
        return self.tail[-1].ordinal if self.tail else self.ordinal

    @property
    def newest_epoch(self) -> int | None:
        """The newest epoch that wrote the saved state or one of the run steps after it."""
        writers = [step.epoch for step in self.tail]
        if self.written_by_epoch is not None:
            writers.append(self.written_by_epoch)
        return max(writers, default=None)

    @property
    def progress(self) -> Progress:
        """How far the run has come, according to this tip."""
        return Progress(
            ordinal=self.tip_ordinal,
            digest=self.tail[-1].chain if self.tail else self.chain,
            checkpoint_count=self.newest_no,
        )


class ProblemKind(StrEnum):
    """Why a run's tip is unusable."""

    MISSING = "missing"
    CORRUPT = "corrupt"
    UNAVAILABLE = "unavailable"
    TOO_NEW = "too_new"
    TOO_LARGE = "too_large"


class CheckpointProblem(Struct, frozen=True, kw_only=True, gc=False):
    """An unusable tip, in place of the checkpoint."""

    run_id: str
    kind: ProblemKind
    message: str


def usable(tip: Checkpoint | CheckpointProblem) -> Checkpoint:
    """The tip, for a caller that cannot continue without it. Raises `PayloadCorrupt`,
    `CheckpointTooNew`, `CheckpointTooLarge`."""
    match tip:
        case Checkpoint():
            return tip
        case CheckpointProblem(kind=ProblemKind.TOO_NEW):
            raise CheckpointTooNew(tip.run_id, found=tip.message)
        case CheckpointProblem(kind=ProblemKind.TOO_LARGE):
            raise CheckpointTooLarge(tip.run_id, found=tip.message)
        case CheckpointProblem():
            raise PayloadCorrupt(f"run {tip.run_id!r}", found=tip.message, needed="an intact run")
