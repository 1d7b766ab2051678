"""An event in a few words: its author, fence, evidence and range."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from recovery_journal.cli.words import between, digest, duration, moment, plain, spaced
from recovery_journal.domain.checkpoint import InDoubt
from recovery_journal.domain.events import (
    Abandoned,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    Quarantined,
    QuarantineLifted,
    ReadyForDispatch,
    RecoveryEvent,
    Replayed,
    Resumed,
    Seized,
    StaleWriteRefused,
    StepFailed,
    tag_of,
)
from recovery_journal.domain.journal_events import (
    AnyJournalEvent,
    EventSkipped,
    JournalEvent,
    RestoreAccepted,
    journal_tag_of,
)
from recovery_journal.domain.lease import Actor, Holder
from recovery_journal.monitoring.history import HistoryEntry, UnreadableEvent

Shown = AnyEvent | AnyJournalEvent | UnreadableEvent
"""The events that a history or the log may show."""


def tag_shown(event: Shown) -> str:
    """The tag of an event, also of one that cannot be read."""
    if isinstance(event, UnreadableEvent):
        return event.stored_tag
    return journal_tag_of(event) if isinstance(event, JournalEvent) else tag_of(event)


def essentials(event: Shown) -> str:
    """What of this event a person wants to know first."""
    if isinstance(event, UnreadableEvent):
        return plain(f"cannot be read: {event.problem}")
    parts = [*_WORDS[type(event)](event), _decided(event.recorded_by)]
    told = ", ".join(part for part in parts if part)
    return plain(told + (f" - {event.reason}" if event.reason else ""))


def in_doubt(effects: Iterable[InDoubt]) -> str:
    """The effects that may happen twice, by their keys."""
    return plain(", ".join(f"{effect.key} {effect.name}" for effect in effects))


def skipped_or(told: str, entry: HistoryEntry) -> str:
    """The words for an entry, marked where every reader skips it."""
    return f"(skipped) {told}" if entry.is_skipped else told


def recovery_no_of(event: Shown) -> int:
    """The recovery that an event names; 0 if it names none."""
    return int(getattr(event, "recovery_no", 0))


def _granted(event: LeaseGranted) -> Iterable[str]:
    yield f"{_holder(event.holder)}, epoch {event.fence.epoch}, ttl {duration(event.ttl_s)}"
    yield f"attempt {event.attempt_no} of run {event.run_id} ({event.kind})"
    yield f"code {event.code_version}" if event.code_version else ""
    yield f"input {digest(event.input_digest)}"


def _expired(event: LeaseExpired) -> Iterable[str]:
    lease = event.lease
    yield f"{spaced(event.loss)}: worker {lease.holder.worker_id}"
    yield f"silent for {between(lease.renewed_at, lease.seen_at)} (ttl {duration(lease.ttl_s)})"
    if event.session:
        gone = between(event.session.gone_at, lease.seen_at)
        yield f"session lock gone for {gone} (grace {duration(event.session.grace_s)})"
    to = f" → {event.fence.epoch}" if event.fence else ""
    yield f"epoch {lease.fence.epoch}{to}"
    if lease.progress:
        yield f"reported step {lease.progress.ordinal} {digest(lease.progress.digest)}"
    yield "" if lease.is_confirmed else "never confirmed"
    yield "with most of the fleet" if event.is_fleet_wide else ""
    yield f"taken back {_machine(event.recorded_by)}"


def _seized(event: Seized) -> Iterable[str]:
    yield f"{spaced(event.why)}, epoch {event.from_fence.epoch} → {event.fence.epoch}"
    yield _machine(event.recorded_by)


def _reloaded(event: CheckpointReloaded) -> Iterable[str]:
    if event.ref is None:
        yield f"no checkpoint: from the input {digest(event.input_digest)}"
    else:
        yield f"checkpoint {event.ref.checkpoint_no} at step {event.ordinal}"
        yield f"state {digest(event.state_digest)}"
    yield f"tail to step {event.to_ordinal}" if event.to_ordinal > event.ordinal else "no tail"
    yield f"{spaced(event.standing)} to what was reported" if event.standing != "unreported" else ""
    yield f"in doubt: {in_doubt(event.in_doubt)}" if event.in_doubt else ""


def _replayed(event: Replayed) -> Iterable[str]:
    if event.to_ordinal < event.from_ordinal:
        yield f"no steps after {event.to_ordinal}"
    else:
        is_one = event.from_ordinal == event.to_ordinal
        yield f"step{'' if is_one else f's {event.from_ordinal} to'} {event.to_ordinal}"
    yield event.mode.value
    if event.expected_digest is None:
        yield f"{digest(event.digest)}, nothing to compare with"
    elif event.digest == event.expected_digest:
        yield f"{digest(event.digest)} as the {event.expected_from} said"
    else:
        yield f"{digest(event.digest)}, expected {digest(event.expected_digest)}"


def _ready(event: ReadyForDispatch) -> Iterable[str]:
    yield f"from the {event.start.value}, priority {event.priority}"
    yield f"not before {moment(event.not_before)}" if event.not_before else ""
    yield f"code {event.code_version}" if event.code_version else ""
    yield f"in doubt: {in_doubt(event.in_doubt)}" if event.in_doubt else ""


def _dispatched(event: Dispatched) -> Iterable[str]:
    yield f"{_holder(event.holder)}, epoch {event.fence.epoch}, ttl {duration(event.ttl_s)}"


def _confirmed(event: Confirmed) -> Iterable[str]:
    yield f"first write: {spaced(event.write)} at step {event.ordinal}, epoch {event.fence.epoch}"


def _step_failed(event: StepFailed) -> Iterable[str]:
    yield f"{spaced(event.failed_step)}: {_failure(event.error_class, event)}"
    yield f"try {event.try_count}, again at {moment(event.retry_at)}"
    yield (
        f"for a program that can read it since {moment(event.waits_since)}"
        if event.waits_since
        else ""
    )


def _abandoned(event: Abandoned) -> Iterable[str]:
    yield spaced(event.why)


def _quarantined(event: Quarantined) -> Iterable[str]:
    yield f"{spaced(event.cause)}: {_failure(event.explanation, event)}"
    yield f"a person may choose {' or '.join(event.options)}"


def _lifted(event: QuarantineLifted) -> Iterable[str]:
    yield f"option {event.option.value}, epoch {event.fence.epoch}"


def _resumed(event: Resumed) -> Iterable[str]:
    yield f"epoch {event.fence.epoch}"


def _refused(event: StaleWriteRefused) -> Iterable[str]:
    yield f"{spaced(event.write)} under the void epoch {event.fence.epoch}"
    yield f"of {event.recorded_by.role} {event.recorded_by.name}"


def _ended(event: LeaseEnded) -> Iterable[str]:
    yield event.ending.value
    yield _failure(event.error_class, event) if event.error_class else ""
    yield f"result {digest(event.result_digest)}" if event.result_digest else ""
    yield f"epoch {event.fence.epoch}"


def _skipped(event: EventSkipped) -> Iterable[str]:
    yield (
        f"position {event.position}: {event.stored_tag}, version {event.version} of attempt "
        f"{event.attempt_id}, {digest(event.state_digest)}"
    )


def _accepted(event: RestoreAccepted) -> Iterable[str]:
    yield f"server {event.system_identifier}, timeline {event.timeline}"
    if event.is_nothing_lost:
        yield "nothing lost"
    else:
        yield f"{event.fenced_count} fenced, {event.difference_count} differences"


def _failure(what: str, event: StepFailed | Quarantined | LeaseEnded) -> str:
    """The failed part and the text of its failure; of an erased text its digest."""
    if event.message:
        return f"{what}: {event.message}"
    if event.message_digest:
        return f"{what}, its text erased, {digest(event.message_digest)}"
    return what


def _decided(by: Actor) -> str:
    """The person who decided; machines are named where they matter."""
    return f"by {by.name}" if by.role == "person" and by.name else ""


def _machine(by: Actor) -> str:
    return f"by the {by.role} {by.host} pid {by.pid}"


def _holder(holder: Holder) -> str:
    life = holder.incarnation
    return f"worker {holder.worker_id} ({life.host} pid {life.pid})"


# One row for each event; a test asserts that none is missing.
_WORDS: Final[dict[type[RecoveryEvent] | type[JournalEvent], Callable[[Any], Iterable[str]]]] = {
    LeaseGranted: _granted,
    LeaseExpired: _expired,
    Seized: _seized,
    CheckpointReloaded: _reloaded,
    Replayed: _replayed,
    ReadyForDispatch: _ready,
    Dispatched: _dispatched,
    Confirmed: _confirmed,
    StepFailed: _step_failed,
    Abandoned: _abandoned,
    Quarantined: _quarantined,
    QuarantineLifted: _lifted,
    Resumed: _resumed,
    StaleWriteRefused: _refused,
    LeaseEnded: _ended,
    EventSkipped: _skipped,
    RestoreAccepted: _accepted,
}
