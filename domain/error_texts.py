"""Keeps the texts of failures out of the log, which is immutable (rule R1).

An exception's text often quotes the data that it failed at: a customer's name, an amount. The log
keeps the class of the error and a digest of the text; the text itself is kept where it can be
erased.
"""

from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from recovery_journal.domain.digest import payload_digest
from recovery_journal.domain.events import AnyEvent, LeaseEnded, Quarantined, StepFailed


class ErrorTexts(StrEnum):
    """Where the texts of failures are kept."""

    TABLE = "table"
    """In a table of their own, which pruning erases."""
    LOG = "log"
    """In the log's events, for ever."""


WITH_TEXT: Final = frozenset({StepFailed, LeaseEnded, Quarantined})
"""The events that may hold the text of a failure."""


def withheld(event: AnyEvent) -> tuple[AnyEvent, str]:
    """The event as the log keeps it, and the text that the log must not keep; empty where it has
    none."""
    match event:
        case StepFailed(message=text) | LeaseEnded(message=text) | Quarantined(message=text):
            if text:
                return replace(event, message="", message_digest=text_digest(text)), text
    return event, ""


def text_digest(text: str) -> str:
    """The digest that identifies a text after it is erased."""
    return payload_digest(text.encode(errors="replace"))
