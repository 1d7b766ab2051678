"""Events as the log stores them: a tag for ever, and JSON with every field written out."""

from collections.abc import Sequence
from typing import Final, get_args

import msgspec

from recovery_journal.domain.errors import CorruptEvent, UnknownEvent
from recovery_journal.domain.event_times import time_out_of_bounds
from recovery_journal.domain.events import AnyEvent, RecoveryEvent, tag_of
from recovery_journal.domain.journal_events import (
    JOURNAL_STREAM,
    AnyJournalEvent,
    JournalEvent,
    journal_tag_of,
)

TAGS: Final = frozenset(tag_of(event) for event in get_args(AnyEvent))
JOURNAL_TAGS: Final = frozenset(journal_tag_of(event) for event in get_args(AnyJournalEvent))

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors that the decoder may raise for a state; the last, where it is nested deeper than our
stack."""

_encode = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder[AnyEvent](AnyEvent)
_journal_decoder: Final = msgspec.json.Decoder[AnyJournalEvent](AnyJournalEvent)


def encode(event: RecoveryEvent | JournalEvent) -> bytes:
    """The event's state, as it is appended.

    The state repeats stream and version, so that a block of states can be decoded alone; they must
    equal the columns.
    """
    return _encode(event)


def decode_states(states: Sequence[bytes]) -> list[AnyEvent]:
    """Decode the events of many states in one call. Raises `ValueError` where it is not certain
    that each state is one event; `decode` then reports on each alone.

    No state may complete its neighbour, or the result would depend on the page. The line break that
    joins two states occurs in no JSON string, and between a `}` before it and a `{` behind it only
    between two documents; so each state is one document or more, and in all there are not more
    documents than states.
    """
    is_joined_between_documents = all(
        state.startswith(b"{") and state.endswith(b"}") for state in states
    )
    try:
        events = _decoder.decode_lines(b"\n".join(states)) if is_joined_between_documents else []
    except RecursionError as error:
        raise ValueError("a state that is nested too deeply") from error
    if len(events) != len(states):
        raise ValueError("states that are not one event each")
    if any(map(time_out_of_bounds, events)):
        raise ValueError("a time at an end of the calendar")
    return events


def decode_block(places: Sequence[tuple[str, int, str]], states: Sequence[bytes]) -> list[AnyEvent]:
    """Decode the events of many rows, whose streams, versions and tags are given. Raises
    `ValueError` where one of them is not what its row says; `decode` finds which."""
    events = decode_states(states)
    says = [(it.originator_id, it.originator_version, tag_of(it)) for it in events]
    if says != list(places):
        raise ValueError("states that say something else than their rows")
    return events


def decode(
    *, attempt_id: str, version: int, tag: str, state: bytes, position: int | None
) -> AnyEvent:
    """The event of one row. Raises `UnknownEvent`, `CorruptEvent`, which name the row."""
    if tag not in TAGS:
        raise UnknownEvent(attempt_id, version=version, tag=tag, position=position)
    try:
        event: AnyEvent = _decoder.decode(state)
    except UNREADABLE as error:
        reason = str(error)
    else:
        says = (event.originator_id, event.originator_version, tag_of(event))
        beyond = time_out_of_bounds(event)
        if beyond is not None:
            reason = f"a time at an end of the calendar, {beyond}"
        elif says == (attempt_id, version, tag):
            return event
        else:
            reason = f"a state that says {says}"
    raise CorruptEvent(attempt_id, version=version, tag=tag, position=position, reason=reason)


def decode_journal_event(
    *, version: int, tag: str, state: bytes, position: int | None
) -> AnyJournalEvent:
    """The event of one row of the journal's own stream. Raises `UnknownEvent`, `CorruptEvent`."""
    if tag not in JOURNAL_TAGS:
        raise UnknownEvent(JOURNAL_STREAM, version=version, tag=tag, position=position)
    try:
        event: AnyJournalEvent = _journal_decoder.decode(state)
    except UNREADABLE as error:
        reason = str(error)
    else:
        says = (event.originator_id, event.originator_version, journal_tag_of(event))
        if says == (JOURNAL_STREAM, version, tag):
            return event
        reason = f"a state of something else: {says}"
    raise CorruptEvent(JOURNAL_STREAM, version=version, tag=tag, position=position, reason=reason)
