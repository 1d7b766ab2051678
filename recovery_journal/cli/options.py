"""The options that several commands share, among them a position or a time in the past."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

import typer
from msgspec import Struct

from recovery_journal.cli import words
from recovery_journal.journal import Journal

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")
]

AttemptId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ATTEMPT", help="The attempt's id.", show_default=False)
]

By: TypeAlias = Annotated[
    str, typer.Option("--by", metavar="NAME", help="The person who decides; kept in the log.")
]

Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="The reason; kept in the log.")
]

Kinds: TypeAlias = Annotated[
    list[str] | None, typer.Option("--kind", metavar="KIND", help="Only runs of this kind.")
]

Tenants: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tenant", metavar="TENANT", help="Only of this tenant.")
]

POSITION: Final = re.compile(r"\d{1,19}")
WAYS: Final = "12345, 2026-03-01T14:00, 2026-03-01T14:00:00+01:00, or 2h for two hours ago"

At: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="POSITION|TIME",
        help=f"As of a position or a time: {WAYS}. Without an offset a time is in UTC.",
    ),
]


class Moment(Struct, frozen=True, kw_only=True):
    """A position of a past read, and its time: the requested one, else the time at which the last
    event at or below it was recorded; None before the first."""

    position: int
    time: datetime | None

    def __str__(self) -> str:
        when = "before the first event" if self.time is None else f"{words.moment(self.time)} UTC"
        return f"position {self.position} ({when})"


def moment_of(journal: Journal, typed: str) -> Moment:
    """The moment that the argument means. Raises as `Journal.position_at`."""
    text = typed.strip()
    if POSITION.fullmatch(text):
        position = journal.position_at(int(text))
        return Moment(position=position, time=journal.time_of(position))
    now = journal.now()
    time = _time_of(text, now)
    return Moment(position=journal.position_at(time), time=min(time, now))


def _time_of(text: str, now: datetime) -> datetime:
    try:
        if words.AGE.fullmatch(text):
            return now - words.age(text)
        time = datetime.fromisoformat(text)
        return (time.replace(tzinfo=UTC) if time.utcoffset() is None else time).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no position and no time; write it like {WAYS}"
        ) from None
