"""One of each thing that tests are about: a run of known digests, its leases, its checkpoints."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from recovery_journal.domain.checkpoint import (
    Checkpoint,
    CheckpointProblem,
    CheckpointRef,
    ProblemKind,
    RunStep,
)
from recovery_journal.domain.digest import chain_next, chain_origin, payload_digest
from recovery_journal.domain.lease import Actor, Fence, Holder, Incarnation, LeaseView, Progress
from recovery_journal.domain.recovery import Decision
from recovery_journal.domain.replay import ReplayOutcome, replay_chain

ATTEMPT_ID = "a-1"
RUN_ID = "r-1"
KIND = "report"
CODE_VERSION = "1.4"
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
SWEEPER = Actor(role="sweeper", host="h-1", pid=11, program="recovery-journal 0.1.0")
WORKER = Actor(role="worker", host="h-1", pid=13, program="recovery-journal 0.1.0", name="w-1")
PERSON = Actor(role="person", host="h-2", pid=12, program="recovery-journal 0.1.0", name="on-call")
INPUT_DIGEST = payload_digest(b"input")


def decision(event_id: str = "decision-1", by: Actor = SWEEPER, reason: str = "") -> Decision:
    """One decision of the sweeper's, unless somebody else is named."""
    return Decision(event_id=event_id, by=by, reason=reason)


def holder(worker_id: str = "w-1") -> Holder:
    """A worker in its first life."""
    return Holder(
        worker_id=worker_id,
        incarnation=Incarnation(host="h-1", boot_id="boot-1", pid=101, started="1000"),
    )


def fence(epoch: int = 1) -> Fence:
    """The fence of this epoch; the same epoch is always the same fence."""
    return Fence(epoch=epoch, lease_id=f"lease-{epoch}")


def lease_view(
    epoch: int = 1, *, progress: Progress | None = None, worker_id: str = "w-1", **changes: Any
) -> LeaseView:
    """A lease seen lost: granted a minute ago, expired ten seconds ago."""
    seen = LeaseView(
        attempt_id=ATTEMPT_ID,
        run_id=RUN_ID,
        kind=KIND,
        holder=holder(worker_id),
        fence=fence(epoch),
        granted_at=NOW - timedelta(seconds=60),
        renewed_at=NOW - timedelta(seconds=40),
        expires_at=NOW - timedelta(seconds=10),
        seen_at=NOW,
        ttl_s=30.0,
        grace_s=5.0,
        progress=progress,
        code_version=CODE_VERSION,
    )
    return replace(seen, **changes)


def chain_at(ordinal: int) -> str:
    """The chain of the test run after this many run steps."""
    chain = chain_origin(RUN_ID, INPUT_DIGEST)
    for number in range(1, ordinal + 1):
        chain = chain_next(
            chain, ordinal=number, name=f"step-{number}", output_digest=output_digest(number)
        )
    return chain


def output_digest(ordinal: int) -> str:
    """The digest of what the test run's step of this ordinal put out."""
    return payload_digest(f"output-{ordinal}".encode())


def run_steps(first: int, last: int) -> tuple[RunStep, ...]:
    """The run steps from the first to the last ordinal, both included, as truly recorded."""
    return tuple(
        RunStep(
            ordinal=number,
            name=f"step-{number}",
            output_digest=output_digest(number),
            chain=chain_at(number),
            epoch=1,
        )
        for number in range(first, last + 1)
    )


def checkpoint(
    ordinal: int = 3, *, checkpoint_no: int = 1, tail_count: int = 2, **changes: Any
) -> Checkpoint:
    """A saved state at this ordinal, and this many run steps after it."""
    tip = Checkpoint(
        run_id=RUN_ID,
        ref=CheckpointRef(run_id=RUN_ID, checkpoint_no=checkpoint_no),
        ordinal=ordinal,
        chain=chain_at(ordinal),
        newest_no=checkpoint_no,
        state_digest=payload_digest(f"state-{ordinal}".encode()),
        written_by_epoch=1,
        code_version=CODE_VERSION,
        input_digest=INPUT_DIGEST,
        tail=run_steps(ordinal + 1, ordinal + tail_count),
    )
    return replace(tip, **changes)


def run_input(*, tail_count: int = 0, **changes: Any) -> Checkpoint:
    """The tip of a run that never saved a state: its input, and its recorded run steps."""
    tip = checkpoint(0, tail_count=tail_count, state_digest=None, written_by_epoch=None)
    return replace(tip, **{"ref": None, "newest_no": 0, **changes})


def problem(kind: ProblemKind = ProblemKind.UNAVAILABLE) -> CheckpointProblem:
    """A tip that cannot be had."""
    return CheckpointProblem(run_id=RUN_ID, kind=kind, message=f"the state is {kind.value}")


def progress(ordinal: int, checkpoint_count: int = 0) -> Progress:
    """A true report of having come this far."""
    return Progress(ordinal=ordinal, digest=chain_at(ordinal), checkpoint_count=checkpoint_count)


def outcome(tip: Checkpoint | None = None, **changes: Any) -> ReplayOutcome:
    """The true result of a chain replay of this tip."""
    return replace(replay_chain(ATTEMPT_ID, tip or checkpoint(), None), **changes)
