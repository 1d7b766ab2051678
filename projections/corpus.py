"""A log of what can happen to attempts, to distinguish folds by the rows that they make of it.

It is part of the hash of every fold, also of users' folds: a change of this file, or of what
corpus_stream.py makes of it, causes a rebuild of every projection everywhere. Everything is spelled
out, so that a new member of an enumeration changes nothing here by itself.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from itertools import zip_longest

from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    Ending,
    LiftOption,
    QuarantineCause,
    SeizeReason,
    StartPoint,
    TipStanding,
    WriteKind,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.replay import ReplayMode
from recovery_journal.projections.corpus_stream import BEGINNING, CorpusStream
from recovery_journal.projections.projection import Record

LONG_GAP_EVERY = 10
LONG_GAP = 700


@cache
def corpus() -> tuple[Record, ...]:
    """The records, in order of position. Streams are interleaved, positions have gaps short and
    long, and times are not always in the order of positions."""
    records = []
    position = 0
    for number, event in enumerate(_interleaved(_streams())):
        position += LONG_GAP if number % LONG_GAP_EVERY == LONG_GAP_EVERY - 1 else 1 + number % 2
        records.append(Record(event, position, _recorded_at(number)))
    return tuple(records)


def _recorded_at(number: int) -> datetime:
    is_late = number % 7 == 6
    return BEGINNING + timedelta(milliseconds=number * 17 - 40 * is_late, microseconds=number)


def _interleaved(streams: Iterator[CorpusStream]) -> Iterator[AnyEvent]:
    for events in zip_longest(*(stream.events for stream in streams)):
        yield from (event for event in events if event is not None)


def _streams() -> Iterator[CorpusStream]:
    yield from _recovered()
    yield from _troubled()
    yield from _stopped()
    yield from _quarantined()
    yield from _poisoned()
    yield from _never_lost()


def _recovered() -> Iterator[CorpusStream]:
    """Lost, taken back and handed on: one time, two times, handed back, and without a
    checkpoint."""
    once = CorpusStream(1, kind="report", tenant="acme", priority=5)
    once.granted("w-1").confirmed(WriteKind.RUN_STEP).lost(LossReason.TTL)
    once.reloaded(TipStanding.EQUAL, checkpoint_no=2).replayed(ReplayMode.CHAIN).ready()
    once.dispatched("w-2").confirmed(WriteKind.CHECKPOINT)
    once.refused(WriteKind.HEARTBEAT, worker="w-1").refused(WriteKind.RUN_STEP, worker="w-1")
    yield once.ended(Ending.COMPLETED)

    twice = CorpusStream(2, kind="mail", priority=-1)
    twice.granted("w-1").lost(LossReason.TTL, is_fleet_wide=True)
    twice.reloaded(TipStanding.AHEAD, checkpoint_no=1)
    twice.replayed(ReplayMode.FOLD, expected="other").ready().dispatched("w-3")
    twice.confirmed(WriteKind.RUN_STEP)
    twice.refused(WriteKind.ANNOUNCEMENT, worker="w-1").refused(WriteKind.CHECKPOINT, worker="w-1")
    twice.lost(LossReason.SESSION_LOST).reloaded(TipStanding.EQUAL, checkpoint_no=3)
    twice.replayed(ReplayMode.SHADOW).ready().dispatched("w-2").confirmed(WriteKind.COMPLETION)
    twice.refused(WriteKind.COMPLETION, worker="w-3").refused(WriteKind.FAILURE, worker="w-3")
    yield twice.ended(Ending.FAILED)

    handed_back = CorpusStream(3, kind="report", tenant="acme")
    handed_back.granted("w-2").confirmed(WriteKind.HAND_BACK).lost(LossReason.HANDED_BACK)
    handed_back.reloaded(TipStanding.UNREPORTED).replayed(ReplayMode.RESTART, expected=None)
    handed_back.ready(StartPoint.INPUT).dispatched("w-1").confirmed(WriteKind.ANNOUNCEMENT)
    handed_back.refused(WriteKind.WAIT, worker="w-2").refused(WriteKind.HAND_BACK, worker="w-2")
    yield handed_back.ended(Ending.COMPLETED)

    still_waiting = CorpusStream(4, kind="mail", tenant="corner", priority=9)
    still_waiting.granted("w-3").lost(LossReason.STALLED)
    still_waiting.reloaded(TipStanding.EQUAL, checkpoint_no=4).replayed(ReplayMode.INLINE)
    yield still_waiting.ready()


def _troubled() -> Iterator[CorpusStream]:
    """Steps that fail and are retried, and fences that are replaced meanwhile."""
    failing = CorpusStream(5, kind="report", priority=1)
    failing.granted("w-1").lost(LossReason.REPORTED, is_fenced=False).seized(SeizeReason.FOREIGN)
    failing.step_failed(RecoveryStep.CHECKPOINT_RELOAD, 1)
    failing.step_failed(RecoveryStep.CHECKPOINT_RELOAD, 2).seized(SeizeReason.RETRY_DUE)
    failing.reloaded(TipStanding.AHEAD, checkpoint_no=2).step_failed(RecoveryStep.REPLAY, 3)
    failing.seized(SeizeReason.SWEEPER_LOST).replayed(ReplayMode.CHAIN)
    failing.step_failed(RecoveryStep.READY_FOR_DISPATCH, 1).ready()
    failing.dispatched("w-4").confirmed(WriteKind.HEARTBEAT, role="sweeper")
    failing.refused(WriteKind.RUN_STEP, worker="w-1", role="sweeper")
    yield failing.ended(Ending.FAILED, role="sweeper")

    unfenced = CorpusStream(6, kind="mail", tenant="acme")
    unfenced.granted("w-4").lost(LossReason.TTL, is_fenced=False)
    unfenced.step_failed(RecoveryStep.LEASE_EXPIRED, 1)
    yield unfenced.abandoned(AbandonReason.RENEWED_LATE)


def _stopped() -> Iterator[CorpusStream]:
    """Recoveries that end early: the worker was alive, the run was done, a person cancelled."""
    alive = CorpusStream(7, kind="report", tenant="corner")
    alive.granted("w-2").lost(LossReason.TTL, is_fenced=False)
    alive.abandoned(AbandonReason.RENEWED_LATE, has_evidence=True).confirmed(WriteKind.WAIT)
    alive.lost(LossReason.STALLED, is_fleet_wide=True).reloaded(TipStanding.EQUAL, checkpoint_no=1)
    alive.replayed(ReplayMode.CHAIN).ready().dispatched("w-1")
    yield alive.ended(Ending.CANCELLED, role="person")

    done = CorpusStream(8, kind="mail").granted("w-3").lost(LossReason.SESSION_LOST)
    yield done.abandoned(AbandonReason.ALREADY_COMPLETED, has_evidence=True)

    yield _ready(9).abandoned(AbandonReason.CANCELLED)
    yield _ready(10).abandoned(AbandonReason.CANCELLED, has_evidence=True)
    yield _ready(11).ended(Ending.CANCELLED, role="person")
    yield _ready(12).ended(Ending.FAILED, role="sweeper")
    yield _ready(13).quarantined(QuarantineCause.TIMEOUT)
    yield _ready(14).quarantined(QuarantineCause.TIMEOUT)


def _ready(number: int) -> CorpusStream:
    stream = CorpusStream(number, kind="mail", tenant="acme", priority=number % 4)
    stream.granted("w-2").lost(LossReason.REPORTED).reloaded(TipStanding.EQUAL, checkpoint_no=5)
    return stream.replayed(ReplayMode.FOLD).ready()


def _quarantined() -> Iterator[CorpusStream]:
    """Quarantined in every stage and for every cause, and lifted by every option."""
    lifts = (
        (QuarantineCause.TIP_LOST, LiftOption.ACCEPT_TIP, TipStanding.BEHIND),
        (QuarantineCause.CORRUPT, LiftOption.PARENT, TipStanding.AHEAD),
        (QuarantineCause.RAISED, LiftOption.RETRY, TipStanding.EQUAL),
        (QuarantineCause.NO_CHECKPOINT, LiftOption.RESTART, TipStanding.UNREPORTED),
    )
    for number, (cause, option, standing) in enumerate(lifts, start=15):
        stream = CorpusStream(number, kind="report", tenant="corner", priority=number)
        stream.granted(f"w-{number}").lost(LossReason.TTL)
        stream.step_failed(RecoveryStep.CHECKPOINT_RELOAD, 1).quarantined(cause).lifted(option)
        stream.reloaded(standing, checkpoint_no=number % 3).replayed(ReplayMode.CHAIN).ready()
        yield stream.dispatched("w-5").confirmed(WriteKind.FAILURE).ended(Ending.COMPLETED)

    again = CorpusStream(19, kind="mail").granted("w-6").lost(LossReason.STALLED)
    again.reloaded(TipStanding.EQUAL, checkpoint_no=1).replayed(ReplayMode.CHAIN).ready()
    again.quarantined(QuarantineCause.CRASH_LOOP).lifted(LiftOption.RETRY)
    again.reloaded(TipStanding.EQUAL, checkpoint_no=1).step_failed(RecoveryStep.REPLAY, 1)
    yield again.quarantined(QuarantineCause.DIVERGED)


def _never_lost() -> Iterator[CorpusStream]:
    """Without any loss: completed, failed, past its timeout, waiting, resumed."""
    yield CorpusStream(20, kind="mail").granted("w-6").ended(Ending.COMPLETED)

    late = CorpusStream(21, kind="report", tenant="acme").granted("w-6")
    late.quarantined(QuarantineCause.TIMEOUT).lifted(LiftOption.RESTART)
    yield late.reloaded(TipStanding.UNREPORTED).step_failed(RecoveryStep.REPLAY, 1)

    resumed = CorpusStream(22, kind="report", tenant="corner").granted("w-7")
    resumed.ended(Ending.WAITING).resumed().reloaded(TipStanding.EQUAL, checkpoint_no=1)
    resumed.replayed(ReplayMode.CHAIN).ready().dispatched("w-6").confirmed(WriteKind.WAIT)
    resumed.ended(Ending.WAITING).resumed().reloaded(TipStanding.EQUAL, checkpoint_no=2)
    resumed.replayed(ReplayMode.CHAIN).ready().dispatched("w-6").ended(Ending.WAITING)
    yield resumed.resumed()

    waiting = CorpusStream(23, kind="mail").granted("w-7").lost(LossReason.TTL)
    yield waiting.step_failed(RecoveryStep.REPLAY, 2).ended(Ending.WAITING, role="sweeper")


def _poisoned() -> Iterator[CorpusStream]:
    """Too new, too large, of a code version that no worker has, or written by an unknown worker."""
    causes = (
        QuarantineCause.TOO_NEW,
        QuarantineCause.TOO_LARGE,
        QuarantineCause.FOREIGN,
    )
    for number, cause in enumerate(causes, start=24):
        stream = CorpusStream(number, kind="mail", tenant="acme", priority=number)
        stream.granted(f"w-{number}").lost(LossReason.REPORTED)
        stream.step_failed(RecoveryStep.CHECKPOINT_RELOAD, 1, has_to_wait=True)
        stream.quarantined(cause).lifted(LiftOption.RETRY)
        yield stream.reloaded(TipStanding.EQUAL, checkpoint_no=number)

    yield _ready(27).quarantined(QuarantineCause.CODE_CHANGED)
    yield _ready(28).quarantined(QuarantineCause.CODE_CHANGED).lifted(LiftOption.ACCEPT_TIP)
