"""The promises to check at the end; each check reports what it found, and whether it holds."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct

import recovery_journal as rj
from scripts.demonstration.acts import DISTURBED, EVIDENCE, Kind, Struck
from scripts.demonstration.evidence import Evidence
from scripts.demonstration.job import Moment

DIGEST_SHOWN: Final = 20


class Check(Struct, frozen=True, kw_only=True):
    """A check: its name, whether it holds, and what it found."""

    name: str
    holds: bool
    finding: str


def same_result(evidence: Evidence) -> Check:
    """The disturbed job has the result of the undisturbed one."""
    one, other = evidence.undisturbed_digest, evidence.disturbed_digest
    is_same = one == other and one.startswith("cs1:")
    return Check(
        name="the same result",
        holds=is_same,
        finding=f"{short(one)} {'=' if is_same else '≠'} {short(other)}",
    )


def every_loss_recovered(evidence: Evidence) -> Check:
    """Every fault resulted in a recovery, on the evidence that such a fault leaves."""
    missing = [struck.worker_id for struck in evidence.struck if not _recovered(evidence, struck)]
    kinds = {struck.fault.kind for struck in evidence.struck}
    finding = f"{len(evidence.struck)} workers struck, {len(evidence.recoveries)} recoveries"
    if missing:
        finding += f"; none as expected for {', '.join(missing)}"
    return Check(
        name="every loss recovered", holds=not missing and kinds == set(Kind), finding=finding
    )


def replays_verified(evidence: Evidence) -> Check:
    """Each replay ended in the digest that the lost worker had reported, over the right range."""
    wrong = [one.recovery_no for one in evidence.recoveries if not one.is_verified]
    tail = next(
        (
            (one.to_ordinal or 0) - (one.checkpoint_ordinal or 0)
            for struck in evidence.struck
            if struck.fault.moment is Moment.RECORDED and struck.fault.kind is Kind.KILL
            for one in evidence.recoveries
            if one.worker_id == struck.worker_id and one.to_ordinal == struck.fault.ordinal
        ),
        0,
    )
    finding = "every chain ends in the digest that its lost worker had reported"
    if wrong:
        finding = f"recoveries {wrong} ended in another digest than their worker had reported"
    elif tail != evidence.checkpoint_every:
        finding = f"killed before a checkpoint: a tail of {tail}, not {evidence.checkpoint_every}"
    return Check(
        name="every replay verified",
        holds=not wrong and tail == evidence.checkpoint_every,
        finding=finding,
    )


def nothing_done_again(evidence: Evidence) -> Check:
    """Every process resumed where the log says, and only effects in doubt happened twice."""
    spared = sum(evidence.resumed_after)
    counts = Counter(f"{DISTURBED}/{no}" for one in evidence.executions for no in one)
    twice = sorted(key for key, count in counts.items() if count > 1)
    in_doubt = {effect.key for one in evidence.recoveries for effect in one.in_doubt}
    begins = {0, *evidence.resumed_after}
    strays = [one[0] for one in evidence.executions if one[0] - 1 not in begins]
    is_known = in_doubt.issuperset(twice)
    finding = (
        f"{spared:,} run steps spared by checkpoints and tails: {evidence.file_count} files took "
        f"{counts.total()} executions"
    )
    if twice:
        finding += f", {', '.join(twice)} twice, {'as' if is_known else 'not'} reported in doubt"
    if strays:
        finding += f"; a worker started again at file {strays[0]}"
    is_complete = len(counts) == evidence.file_count
    return Check(
        name="no work done again",
        holds=spared > 0 and is_complete and is_known and not strays,
        finding=finding,
    )


def sleeper_refused(evidence: Evidence) -> Check:
    """The suspended worker woke up after the end, was refused, and did nothing more."""
    sleeper = evidence.waking.worker_id
    epochs = {one.lost_epoch for one in evidence.recoveries if one.worker_id == sleeper}
    refused = [
        one
        for one in evidence.refusals
        if one.epoch in epochs and one.position > evidence.completed_position
    ]
    late = evidence.waking.execution_count
    writes = ", ".join(one.write.replace("_", " ") for one in refused) or "nothing"
    return Check(
        name="the sleeper refused",
        holds=bool(refused) and late == 0,
        finding=f"{sleeper} woke up too late: {writes} refused, {late or 'no'} more files executed",
    )


def same_rows(evidence: Evidence) -> Check:
    """Dropped and rebuilt from the log, the projections' rows are what they were."""
    rebuilt = evidence.rebuilt
    is_same = rebuilt.before == rebuilt.after and rebuilt.left_count == 0
    row_count = sum(one.row_count for one in rebuilt.before)
    finding = (
        f"{len(rebuilt.before)} tables dropped, {row_count} rows rebuilt from "
        f"{rebuilt.event_count} events, all equal"
    )
    if not is_same:
        differing = [
            one.table for one in rebuilt.before if one not in rebuilt.after or rebuilt.left_count
        ]
        finding = f"other rows than before in {', '.join(differing) or 'a table that is new'}"
    return Check(name="the same rows", holds=is_same and row_count > 0, finding=finding)


CHECKS: Final[tuple[Callable[[Evidence], Check], ...]] = (
    same_result,
    every_loss_recovered,
    replays_verified,
    nothing_done_again,
    sleeper_refused,
    same_rows,
)


def short(digest: str) -> str:
    """The beginning of a digest: enough to compare by eye."""
    return digest[:DIGEST_SHOWN]


def _recovered(evidence: Evidence, struck: Struck) -> list[rj.RecoveryContextRow]:
    needed = EVIDENCE[struck.fault.kind]
    return [
        one
        for one in evidence.recoveries
        if one.worker_id == struck.worker_id and one.loss == needed and one.dispatched_to
    ]
