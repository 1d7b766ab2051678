"""Replaying a run's tail: the digest chain is recomputed, and no user code runs."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from recovery_journal.domain.checkpoint import Checkpoint, RunStep
from recovery_journal.domain.digest import chain_next, same_codec
from recovery_journal.domain.lease import Progress

Reducer: TypeAlias = Callable[[Any, str, Any], Any]
"""`(state, step_name, output) → state`: pure. The state before the first step is the run's input
where no checkpoint was written."""


class ReplayMode(StrEnum):
    """How a tail was replayed: by its chain, by a reducer, on a copy, after dispatch, or not."""

    CHAIN = "chain"
    FOLD = "fold"
    SHADOW = "shadow"
    INLINE = "inline"
    RESTART = "restart"


class ReplayResult(StrEnum):
    """The result of a replay."""

    REPLAYED = "replayed"
    DIVERGED = "diverged"
    RAISED = "raised"
    UNAVAILABLE = "unavailable"
    UNREADABLE = "unreadable"  # by this process, which lacks a codec


class ReplayOutcome(Struct, frozen=True, kw_only=True, gc=False):
    """One replay: the range it covered, the digest it found and the expected one.

    `expected_from` names the source of the expected digest; without one there is nothing to
    compare. `state_digest` is the folded state's digest, where a reducer folded the tail.
    """

    attempt_id: str
    result: ReplayResult
    mode: ReplayMode
    from_ordinal: int
    to_ordinal: int
    digest: str
    expected_digest: str | None = None
    expected_from: str = "none"
    diverged_at: int | None = None
    state_digest: str | None = None
    error_class: str = ""
    message: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether the replay reached the expected digest: always derived."""
        return self.digest == self.expected_digest

    @property
    def has_diverged(self) -> bool:
        """Whether it says `DIVERGED`, or its two digests differ although it says `REPLAYED`."""
        if self.result is not ReplayResult.REPLAYED:
            return self.result is ReplayResult.DIVERGED
        expected = self.expected_digest
        return expected not in (None, self.digest) and same_codec(self.digest, expected)


def replay_chain(attempt_id: str, tip: Checkpoint, reported: Progress | None) -> ReplayOutcome:
    """Recompute the chain from the checkpoint through the tail.

    Each link is compared with the one recorded beside its run step, and the link at the ordinal
    that the dead worker reported with the digest that it reported.
    """
    digest, expected, source = _expectation(tip.ordinal, tip.chain, "checkpoint", reported, tip)
    ordinal = tip.ordinal
    for step in tip.tail:
        if digest != expected:
            break
        ordinal = step.ordinal
        found = chain_next(
            digest, ordinal=ordinal, name=step.name, output_digest=step.output_digest
        )
        digest, expected, source = _expectation(ordinal, found, "run step", reported, step)
    has_diverged = digest != expected
    return ReplayOutcome(
        attempt_id=attempt_id,
        result=ReplayResult.DIVERGED if has_diverged else ReplayResult.REPLAYED,
        mode=ReplayMode.CHAIN if tip.ref else ReplayMode.RESTART,
        from_ordinal=tip.ordinal + 1,
        to_ordinal=ordinal,
        digest=digest,
        expected_digest=expected,
        expected_from=source,
        diverged_at=ordinal if has_diverged else None,
    )


def _expectation(
    ordinal: int, found: str, source: str, reported: Progress | None, recorded: RunStep | Checkpoint
) -> tuple[str, str, str]:
    """(digest found, digest expected, source of the expected one): the store's record first,
    because a link that contradicts its own record is wrong whatever the worker reported."""
    if (
        found == recorded.chain
        and reported is not None
        and reported.ordinal == ordinal
        and same_codec(found, reported.digest)
    ):
        return found, reported.digest, "heartbeat"
    return found, recorded.chain, source
