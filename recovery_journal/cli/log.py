"""The command that reads the log as it grows: `log`."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.essentials import essentials_of, recovery_no_of, tag_shown
from recovery_journal.cli.exits import report
from recovery_journal.cli.options import AsJson
from recovery_journal.cli.target import journal_of
from recovery_journal.domain.errors import Retry, StreamUnusable
from recovery_journal.journal import Journal
from recovery_journal.monitoring.history import HistoryEntry
from recovery_journal.process.back_off import BackOff
from recovery_journal.process.signals import stopping_on_signals

SHOWN_AT_FIRST: Final = 20
PAGE_EVENTS: Final = 1_000
LONGEST_WINDOW: Final = 10_000
LONGEST_PAUSE_S: Final = 0.5
OUTAGE_PAUSE_S: Final = 2.0
NAME_WIDTH: Final = 16
EVENT_WIDTH: Final = 19

Show = Callable[[HistoryEntry], None]


def log(
    context: typer.Context,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new events until stopped.")
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(min=0, metavar="POSITION", help="Begin after this position; 0 is the start."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many at most; without --after, the newest 20.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the events of all attempts in the log's order, with --json one document a line."""
    show = page.show_json_line if as_json else Lines().show
    stop = threading.Event()
    with journal_of(context) as journal, stopping_on_signals(stop) if follow else nullcontext():
        position = after or 0
        for entry in _read(journal, after, limit):
            show(entry)
            position = entry.position
        while follow and not stop.is_set():
            position = _follow(journal, position, show, stop, as_json=as_json)


def _read(journal: Journal, after: int | None, limit: int | None) -> Iterator[HistoryEntry]:
    if after is None:
        yield from _newest(journal, SHOWN_AT_FIRST if limit is None else limit)
        return
    left = limit
    while left is None or left > 0:
        entries = journal.log(after=after, limit=min(PAGE_EVENTS, left or PAGE_EVENTS))
        if not entries:
            return
        yield from entries
        after = entries[-1].position
        left = None if left is None else left - len(entries)


def _newest(journal: Journal, count: int) -> Iterator[HistoryEntry]:
    """The last settled events; where one of them cannot be read, those before it and its error.
    Positions have gaps, so read further back until there are enough."""
    end = journal.status().settled_position
    window = count
    entries, obstacle = _last(journal, end - window, count)
    while len(entries) < count and window < min(end, LONGEST_WINDOW):
        window *= 2
        entries, obstacle = _last(journal, end - window, count)
    yield from entries
    if obstacle is not None:
        raise obstacle


def _last(
    journal: Journal, start: int, count: int
) -> tuple[deque[HistoryEntry], StreamUnusable | None]:
    """The last events behind a position, up to the first that cannot be read, and its error."""
    entries: deque[HistoryEntry] = deque(maxlen=count)
    try:
        entries.extend(_read(journal, max(start, 0), None))
    except StreamUnusable as error:
        return entries, error
    return entries, None


def _follow(
    journal: Journal, position: int, show: Show, stop: threading.Event, *, as_json: bool
) -> int:
    """Show new events as they settle, until stopped. A problem with the server is reported and
    waited out. Return the position of the last event."""
    back_off = BackOff(longest_s=LONGEST_PAUSE_S)
    try:
        while not stop.is_set():
            entries = journal.log(after=position, limit=PAGE_EVENTS)
            for entry in entries:
                show(entry)
                position = entry.position
            if entries:
                back_off.reset()
            stop.wait(back_off.pause_s())
    except Retry as problem:
        report(problem, as_json=as_json)
        stop.wait(OUTAGE_PAUSE_S)
    return position


class Lines:
    """Events as lines for people. Columns have a fixed width, because future events are unknown; a
    long id widens its own line. On a terminal each new day has a line of its own."""

    def __init__(self) -> None:
        self._is_terminal = page.console().is_terminal
        self._day: str | None = None

    def show(self, entry: HistoryEntry) -> None:
        """One event."""
        day = words.day(entry.recorded_at)
        if self._is_terminal and day != self._day:
            page.show(Text(f"{'':8}  {day} (UTC)", style="dim"))
        self._day = day
        page.show(self._line(entry))

    def _line(self, entry: HistoryEntry) -> Table:
        event, at = entry.event, entry.recorded_at
        name = words.recovery_name(event.originator_id, recovery_no_of(event)) or "the journal"
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(justify="right", min_width=8, no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(min_width=NAME_WIDTH, overflow="fold")
        line.add_column(min_width=EVENT_WIDTH, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(
            page.text(entry.position),
            Text(words.time_of_day(at) if self._is_terminal else words.moment(at), style="dim"),
            page.text(name, "bold"),
            page.styled(tag_shown(event)),
            page.text(essentials_of(entry)),
        )
        return line
