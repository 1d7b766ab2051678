"""An event in a few words: its author, fence, evidence and range."""

from collections.abc import Iterable
from typing import assert_never

from recovery_journal.cli.words import between, digest, duration, moment, plain, spaced
from recovery_journal.domain import events, journal_events
from recovery_journal.domain.checkpoint import InDoubt
from recovery_journal.domain.lease import Actor, Holder
from recovery_journal.monitoring.history import HistoryEntry, UnreadableEvent

Shown = events.AnyEvent | journal_events.AnyJournalEvent | UnreadableEvent
"""The events that a history or the log may show."""


def tag_shown(event: Shown) -> str:
    """The tag of an event, also of one that cannot be read."""
    if isinstance(event, UnreadableEvent):
        return event.stored_tag
    if isinstance(event, journal_events.JournalEvent):
        return journal_events.journal_tag_of(event)
    return events.tag_of(event)


def essentials(event: Shown) -> str:
    """The details of this event that a person needs first."""
    if isinstance(event, UnreadableEvent):
        return plain(f"cannot be read: {event.problem}")
    parts = [*_details(event), _decided(event.recorded_by)]
    details = ", ".join(part for part in parts if part)
    return plain(details + (f" - {event.reason}" if event.reason else ""))


def in_doubt(effects: Iterable[InDoubt]) -> str:
    """The effects that may happen twice, by their keys."""
    return plain(", ".join(f"{effect.key} {effect.name}" for effect in effects))


def essentials_of(entry: HistoryEntry) -> str:
    """The details of an entry's event, marked where every reader skips it."""
    return f"{'(skipped) ' if entry.is_skipped else ''}{essentials(entry.event)}"


def recovery_no_of(event: Shown) -> int:
    """The recovery that an event names; 0 if it names none."""
    return int(getattr(event, "recovery_no", 0))


def _details(event: events.AnyEvent | journal_events.AnyJournalEvent) -> Iterable[str]:
    match event:
        case events.LeaseGranted():
            return _granted(event)
        case events.LeaseExpired():
            return _expired(event)
        case events.Seized(from_fence=before, fence=fence):
            epochs = f"epoch {before.epoch} → {fence.epoch}"
            return (f"{spaced(event.why)}, {epochs}", _machine(event.recorded_by))
        case events.CheckpointReloaded():
            return _reloaded(event)
        case events.Replayed():
            return _replayed(event)
        case events.ReadyForDispatch():
            return _ready(event)
        case events.Dispatched(fence=fence):
            return (f"{_holder(event.holder)}, epoch {fence.epoch}, ttl {duration(event.ttl_s)}",)
        case events.Confirmed(write=write, ordinal=ordinal, fence=fence):
            return (f"first write: {spaced(write)} at step {ordinal}, epoch {fence.epoch}",)
        case events.StepFailed():
            return _step_failed(event)
        case events.Abandoned():
            return (spaced(event.why),)
        case events.Quarantined():
            failure = f"{spaced(event.cause)}: {_failure(event.explanation, event)}"
            return (failure, f"a person may choose {' or '.join(event.options)}")
        case events.QuarantineLifted():
            return (f"option {event.option.value}, epoch {event.fence.epoch}",)
        case events.Resumed():
            return (f"epoch {event.fence.epoch}",)
        case events.StaleWriteRefused(recorded_by=worker):
            refused = f"{spaced(event.write)} under the void epoch {event.fence.epoch}"
            return (refused, f"of {worker.role} {worker.name}")
        case events.LeaseEnded():
            return _ended(event)
        case journal_events.EventSkipped():
            return _skipped(event)
        case journal_events.RestoreAccepted():
            return _accepted(event)
        case _:
            assert_never(event)


def _granted(event: events.LeaseGranted) -> Iterable[str]:
    yield f"{_holder(event.holder)}, epoch {event.fence.epoch}, ttl {duration(event.ttl_s)}"
    yield f"attempt {event.attempt_no} of run {event.run_id} ({event.kind})"
    yield f"code {event.code_version}" if event.code_version else ""
    yield f"input {digest(event.input_digest)}"


def _expired(event: events.LeaseExpired) -> Iterable[str]:
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
    yield f"declared lost {_machine(event.recorded_by)}"


def _reloaded(event: events.CheckpointReloaded) -> Iterable[str]:
    if event.ref is None:
        yield f"no checkpoint: from the input {digest(event.input_digest)}"
    else:
        yield f"checkpoint {event.ref.checkpoint_no} at step {event.ordinal}"
        yield f"state {digest(event.state_digest)}"
    yield f"tail to step {event.to_ordinal}" if event.to_ordinal > event.ordinal else "no tail"
    yield f"{spaced(event.standing)} to what was reported" if event.standing != "unreported" else ""
    yield f"in doubt: {in_doubt(event.in_doubt)}" if event.in_doubt else ""


def _replayed(event: events.Replayed) -> Iterable[str]:
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


def _ready(event: events.ReadyForDispatch) -> Iterable[str]:
    yield f"from the {event.start.value}, priority {event.priority}"
    yield f"not before {moment(event.not_before)}" if event.not_before else ""
    yield f"code {event.code_version}" if event.code_version else ""
    yield f"in doubt: {in_doubt(event.in_doubt)}" if event.in_doubt else ""


def _step_failed(event: events.StepFailed) -> Iterable[str]:
    yield f"{spaced(event.failed_step)}: {_failure(event.error_class, event)}"
    yield f"try {event.try_count}, again at {moment(event.retry_at)}"
    if event.waits_since:
        yield f"waits since {moment(event.waits_since)} for a program that can read it"


def _ended(event: events.LeaseEnded) -> Iterable[str]:
    yield event.ending.value
    yield _failure(event.error_class, event) if event.error_class else ""
    yield f"result {digest(event.result_digest)}" if event.result_digest else ""
    yield f"epoch {event.fence.epoch}"


def _skipped(event: journal_events.EventSkipped) -> Iterable[str]:
    yield (
        f"position {event.position}: {event.stored_tag}, version {event.version} of attempt "
        f"{event.attempt_id}, {digest(event.state_digest)}"
    )


def _accepted(event: journal_events.RestoreAccepted) -> Iterable[str]:
    yield f"server {event.system_identifier}, timeline {event.timeline}"
    if event.is_nothing_lost:
        yield "nothing lost"
    else:
        yield f"{event.fenced_count} fenced, {event.difference_count} differences"


def _failure(what: str, event: events.StepFailed | events.Quarantined | events.LeaseEnded) -> str:
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
