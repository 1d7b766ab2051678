"""The ports that a runtime must implement so that its attempts can be recovered.

Calls take batches, because a mass crash is a batch, and each element gets its own answer: one bad
run never fails its cohort. Answers are in the order of the arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, CheckpointRef
from recovery_journal.domain.pipeline import RecoveryContext
from recovery_journal.domain.replay import ReplayOutcome

Reducer = Callable[[Any, str, Any], Any]
"""`(state, step_name, output) → state`: pure. The state before the first step is the run's input
where no checkpoint was written."""


class CheckpointStore(Protocol):
    """Where states and run steps are kept; read only."""

    def tips(self, runs: Sequence[str]) -> Sequence[Checkpoint | CheckpointProblem]:
        """The newest checkpoint of each run and the tail after it: digests, no payloads."""

    def state(self, ref: CheckpointRef, *, limit_bytes: int) -> Iterator[bytes]:
        """The encoded state in pieces; refused above the limit."""


class Replayer(Protocol):
    """Replays the tails of runs."""

    def replay(self, work: Sequence[tuple[RecoveryContext, Checkpoint]]) -> Sequence[ReplayOutcome]:
        """Replay each context's tail from its checkpoint."""
