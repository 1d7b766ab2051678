"""The work of a synthetic run: its run steps, and the checkpoint before the last of them."""

from typing import Final

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointRef, RunStep
from recovery_journal.domain.digest import chain_next, chain_origin, payload_digest

CODE_VERSION: Final = "2026.1"
SAVED_STEPS: Final = 2
TAIL_STEPS: Final = 3


def fresh_tip(run_id: str) -> Checkpoint:
    """Where a run begins: at its input."""
    input_digest = payload_digest(run_id.encode())
    return Checkpoint(
        run_id=run_id,
        ref=None,
        ordinal=0,
        chain=chain_origin(run_id, input_digest),
        input_digest=input_digest,
    )


def worked_on(tip: Checkpoint, epoch: int) -> Checkpoint:
    """The tip once a worker has recorded some run steps, saved the state, and recorded more."""
    *_, saved = _steps(tip.tip_ordinal, tip.progress.digest, SAVED_STEPS, tip, epoch)
    number = tip.newest_no + 1
    return Checkpoint(
        run_id=tip.run_id,
        ref=CheckpointRef(run_id=tip.run_id, checkpoint_no=number),
        ordinal=saved.ordinal,
        chain=saved.chain,
        newest_no=number,
        state_digest=payload_digest(saved.chain.encode()),
        written_by_epoch=epoch,
        code_version=CODE_VERSION,
        input_digest=tip.input_digest,
        tail=tuple(_steps(saved.ordinal, saved.chain, TAIL_STEPS, tip, epoch)),
    )


def _steps(ordinal: int, chain: str, count: int, tip: Checkpoint, epoch: int) -> list[RunStep]:
    """So many run steps after an ordinal, all with the run's input as their output."""
    steps = []
    for at in range(ordinal + 1, ordinal + 1 + count):
        chain = chain_next(chain, ordinal=at, name="step", output_digest=tip.input_digest)
        step = RunStep(
            ordinal=at, name="step", output_digest=tip.input_digest, chain=chain, epoch=epoch
        )
        steps.append(step)
    return steps
