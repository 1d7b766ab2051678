"""The events of the journal's own stream: acts of people that concern the journal and no single
attempt.

Its id is the empty text, which no attempt can have: an attempt's has at least one character. Folds
over attempts pass over this stream.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from recovery_journal.domain.bounds import LARGEST_NUMBER, Number
from recovery_journal.domain.events import FIRST_VERSION
from recovery_journal.domain.lease import Actor

JOURNAL_STREAM: Final = ""
"""The id of the journal's own stream."""


class JournalEvent(Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """The common fields: the event's place in the stream, the person who decided, and the
    reason."""

    originator_id: str = JOURNAL_STREAM
    originator_version: Annotated[int, Meta(ge=FIRST_VERSION, le=LARGEST_NUMBER)]
    event_id: str
    recorded_by: Actor
    reason: str


class EventSkipped(JournalEvent, frozen=True, kw_only=True, tag="event-skipped"):
    """A person made every reader pass over the event at `position`.

    The event is identified by its position and the digest of its stored bytes. `obstacle` says what
    was wrong.
    """

    position: Number
    attempt_id: str
    version: Number
    stored_tag: str
    state_digest: str
    obstacle: str


class RestoreAccepted(JournalEvent, frozen=True, kw_only=True, tag="restore-accepted"):
    """A person accepted the server on which the journal was found.

    `is_nothing_lost` means that nothing else was changed. Otherwise `fenced_count` leases were
    fenced and `difference_count` lease rows and streams differed; epochs continue above
    `skipped_to_epoch`, positions above `skipped_to_position`.
    """

    system_identifier: str
    timeline: Number
    is_nothing_lost: bool
    fenced_count: Number = 0
    difference_count: Number = 0
    skipped_to_epoch: Number | None = None
    skipped_to_position: Number | None = None


AnyJournalEvent = EventSkipped | RestoreAccepted


def journal_tag_of(event: JournalEvent | type[JournalEvent]) -> str:
    """The tag under which events of this class are stored for ever."""
    config: Any = event.__struct_config__
    return str(config.tag)
