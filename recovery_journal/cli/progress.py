"""Shows the progress of a rebuild or a check: a progress bar on a terminal, plain lines elsewhere,
both on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.read_models.rebuild.progress import Phase, RebuildProgress

Watch = Callable[[RebuildProgress], None]

COUNTED: Final = (Phase.FOLDING, Phase.CHECKING)
"""The phases in which events are read; the others are short, or of unknown length."""


@contextmanager
def watching(*, is_silent: bool) -> Iterator[Watch]:
    """The function to report each progress to; it shows nothing where standard error is for
    programs."""
    if is_silent:
        yield lambda _progress: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("events"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = page.console(is_error=True)
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield _Bar(progress)


class _Bar:
    """One bar, for all phases."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading the log", total=None)
        self._sentence: str | None = None

    def __call__(self, told: RebuildProgress) -> None:
        if self._sentence is None and (missing := _missing(told)):
            self._progress.print(missing)
        if self._sentence != _sentence(told):
            # Events that were folded before, or in another phase, do not count for the speed.
            self._progress.reset(self._task, completed=told.event_count)
            self._sentence = _sentence(told)
        # Positions have gaps, so the last block may end below the total.
        completed = told.event_count if told.phase in COUNTED else told.total
        self._progress.update(
            self._task, description=self._sentence, completed=completed, total=told.total
        )


class _Rate(ProgressColumn):
    """Events a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        """The cell of this column."""
        return Text("" if not task.speed else f"{task.speed:,.0f}/s")


class _Lines:
    """One line for each new phase, and while the log is read for each tenth of it."""

    def __init__(self) -> None:
        self._told: tuple[str, int] | None = None
        self._began = time.monotonic()
        self._first_count = 0

    def __call__(self, told: RebuildProgress) -> None:
        is_counted = told.phase in COUNTED
        tenths = 10 * told.event_count // max(told.total, 1)
        now = (_sentence(told), tenths if is_counted else 0)
        if now == self._told:
            return
        if self._told is None and (missing := _missing(told)):
            self._say(missing)
        if self._told is None or self._told[0] != now[0]:
            self._began, self._first_count = time.monotonic(), told.event_count
        self._told = now
        self._say(now[0] + (self._count(told) if is_counted else ""))

    def _count(self, told: RebuildProgress) -> str:
        said = f": {told.event_count:,} of {told.total:,} events"
        seconds = time.monotonic() - self._began
        count = told.event_count - self._first_count
        if count <= 0 or seconds <= 0:
            return said
        rate = count / seconds
        left_s = max(told.total - told.event_count, 0) / rate
        return f"{said}, {rate:,.0f}/s, {words.duration(left_s)} left"

    def _say(self, line: str) -> None:
        page.console(is_error=True).print(line)


def _missing(told: RebuildProgress) -> str | None:
    """How much is left to do for a start that resumes an earlier one."""
    if not told.done_before:
        return None
    missing = max(told.total - told.done_before, 0)
    return (
        f"going on with a rebuild that was broken off: {told.done_before:,} of {told.total:,} "
        f"events are folded, {missing:,} are missing"
    )


def _sentence(told: RebuildProgress) -> str:
    return told.phase.value + (f" {told.projection}" if told.projection else "")
