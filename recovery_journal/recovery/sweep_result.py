"""The report of a sweep: to its caller, and to an observer while it runs."""

from collections.abc import Callable

from msgspec import Struct

from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.ranges import require_kind
from recovery_journal.domain.recovery import Recovery, Stage


class SweepResult(Struct, frozen=True, kw_only=True):
    """The result of a sweep for one attempt: its stage afterwards, or the error that stopped it."""

    attempt_id: str
    run_id: str = ""
    recovery_no: int = 0
    stage: Stage | None = None
    error: str = ""

    @classmethod
    def of(cls, recovery: Recovery, error: str = "") -> "SweepResult":
        """The result for an attempt after its sweep."""
        require_kind("recovery", recovery, Recovery, "a Recovery")
        return cls(
            attempt_id=recovery.attempt_id,
            run_id=recovery.run_id,
            recovery_no=recovery.recovery_no,
            stage=recovery.stage,
            error=error,
        )

    @property
    def is_ready(self) -> bool:
        """Whether the attempt may now be claimed."""
        return self.stage is Stage.READY


class StepTaken(Struct, frozen=True, kw_only=True):
    """Reported to an observer each time a step of a batch is durable."""

    step: RecoveryStep
    attempt_ids: tuple[str, ...]


StepObserver = Callable[[StepTaken], object]
