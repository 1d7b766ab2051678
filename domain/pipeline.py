"""The four steps of a recovery, and the context its replay is given."""

from enum import StrEnum

from msgspec import Struct

from recovery_journal.domain.checkpoint import CheckpointRef
from recovery_journal.domain.lease import Fence, Progress


class RecoveryStep(StrEnum):
    """One step of the pipeline. The names come from the system this one reimplements."""

    LEASE_EXPIRED = "lease_expired"
    CHECKPOINT_RELOAD = "checkpoint_reload"
    REPLAY = "replay"
    READY_FOR_DISPATCH = "ready_for_dispatch"

    @classmethod
    def pipeline(cls) -> tuple["RecoveryStep", ...]:
        """The four steps in the order in which they must be taken."""
        return (cls.LEASE_EXPIRED, cls.CHECKPOINT_RELOAD, cls.REPLAY, cls.READY_FOR_DISPATCH)


class RecoveryContext(Struct, frozen=True):
    """The arguments of a replay. Immutable and comparable; `copy.replace`-like changes make a new
    one.

    `from_ordinal` is the first run step to replay, `to_ordinal` the last; both are ordinals of the
    run, and an empty tail has `to_ordinal == from_ordinal - 1`.
    """

    attempt_id: str
    run_id: str
    kind: str = ""
    recovery_no: int = 1
    checkpoint: CheckpointRef | None = None
    from_ordinal: int = 1
    to_ordinal: int = 0
    expected: Progress | None = None
    fence: Fence | None = None


class CrashRecoveryPipeline(Struct, frozen=True):
    """The plan of one recovery: its steps and the context for its replay."""

    attempt_id: str
    run_id: str

    @staticmethod
    def steps() -> tuple[RecoveryStep, ...]:
        """The pipeline's steps; callable on the class."""
        return RecoveryStep.pipeline()

    def replay_context(self) -> RecoveryContext:
        """The context for these ids, before any checkpoint is known."""
        return RecoveryContext(self.attempt_id, self.run_id)
