"""Events as the log stores them: a tag for ever, and JSON with every field written out.

The state repeats stream, version and tag, so that a block of states can be decoded alone; they must
equal the columns.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

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

TAG_OF: Final = {kind: tag_of(kind) for kind in get_args(AnyEvent)}
TAGS: Final = frozenset(TAG_OF.values())
JOURNAL_TAGS: Final = frozenset(journal_tag_of(kind) for kind in get_args(AnyJournalEvent))

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors that the decoder may raise for a state; the last, where it is nested deeper than our
stack."""

encode: Final[Callable[[RecoveryEvent | JournalEvent], bytes]] = msgspec.json.Encoder().encode
"""The state of an event, as it is appended."""

_decoder: Final = msgspec.json.Decoder[AnyEvent](AnyEvent)
_journal_decoder: Final = msgspec.json.Decoder[AnyJournalEvent](AnyJournalEvent)


def decode(*, stream: str, version: int, tag: str, state: bytes, position: int | None) -> AnyEvent:
    """The event of one row. Raises `UnknownEvent`, `CorruptEvent`, which name the row."""
    place: dict[str, Any] = {"version": version, "tag": tag, "position": position}
    if tag not in TAGS:
        raise UnknownEvent(stream, **place)
    try:
        event: AnyEvent = _decoder.decode(state)
    except UNREADABLE as error:
        raise CorruptEvent(stream, **place, reason=str(error)) from error
    beyond = time_out_of_bounds(event)
    if beyond is not None:
        reason = f"a time at an end of the calendar, {beyond}"
        raise CorruptEvent(stream, **place, reason=reason)
    says = (event.originator_id, event.originator_version, TAG_OF[type(event)])
    if says != (stream, version, tag):
        raise CorruptEvent(stream, **place, reason=f"a state that says {says}")
    return event


def decode_journal_event(
    *, version: int, tag: str, state: bytes, position: int | None
) -> AnyJournalEvent:
    """The event of one row of the journal's own stream. Raises `UnknownEvent`, `CorruptEvent`."""
    place: dict[str, Any] = {"version": version, "tag": tag, "position": position}
    if tag not in JOURNAL_TAGS:
        raise UnknownEvent(JOURNAL_STREAM, **place)
    try:
        event: AnyJournalEvent = _journal_decoder.decode(state)
    except UNREADABLE as error:
        raise CorruptEvent(JOURNAL_STREAM, **place, reason=str(error)) from error
    says = (event.originator_id, event.originator_version, journal_tag_of(event))
    if says != (JOURNAL_STREAM, version, tag):
        raise CorruptEvent(JOURNAL_STREAM, **place, reason=f"a state of something else: {says}")
    return event


def decode_block(
    streams: Sequence[str], versions: Sequence[int], tags: Sequence[str], states: Sequence[bytes]
) -> list[AnyEvent]:
    """Decode the events of many rows in one call. Raises `ValueError` where one of them cannot be
    read or is not what its row says; `decode` finds which.

    Compared column by column, because a loop over the events would take half as long as their
    decoding.
    """
    events = decode_states(states)
    if (
        [event.originator_id for event in events] != [*streams]
        or [event.originator_version for event in events] != [*versions]
        or [TAG_OF[type(event)] for event in events] != [*tags]
    ):
        raise ValueError("states that say something else than their rows")
    return events


def decode_states(states: Sequence[bytes]) -> list[AnyEvent]:
    """Decode the events of many states in one call. Raises `ValueError` where it is not certain
    that each state is one event.

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
