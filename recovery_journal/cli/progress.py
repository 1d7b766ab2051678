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
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            yield _Bar(bar)
    else:
        yield _Lines()


class _Bar:
    """One bar, for all phases."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading the log", total=None)
        self._sentence: str | None = None

    def __call__(self, progress: RebuildProgress) -> None:
        if self._sentence is None and (missing := _missing(progress)):
            self._progress.print(missing)
        if self._sentence != _sentence(progress):
            # Events that were folded before, or in another phase, do not count for the speed.
            self._progress.reset(self._task, completed=progress.event_count)
            self._sentence = _sentence(progress)
        # Positions have gaps, so the last block may end below the total.
        completed = progress.event_count if progress.phase in COUNTED else progress.total
        self._progress.update(
            self._task, description=self._sentence, completed=completed, total=progress.total
        )


class _Rate(ProgressColumn):
    """Events a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        """The cell of this column."""
        return Text("" if not task.speed else f"{task.speed:,.0f}/s")


class _Lines:
    """One line for each new phase, and while the log is read for each tenth of it."""

    def __init__(self) -> None:
        self._printed: tuple[str, int] | None = None
        self._began = time.monotonic()
        self._first_count = 0

    def __call__(self, progress: RebuildProgress) -> None:
        is_counted = progress.phase in COUNTED
        tenths = 10 * progress.event_count // max(progress.total, 1)
        now = (_sentence(progress), tenths if is_counted else 0)
        if now == self._printed:
            return
        if self._printed is None and (missing := _missing(progress)):
            self._print(missing)
        if self._printed is None or self._printed[0] != now[0]:
            self._began, self._first_count = time.monotonic(), progress.event_count
        self._printed = now
        self._print(now[0] + (self._count(progress) if is_counted else ""))

    def _count(self, progress: RebuildProgress) -> str:
        counts = f": {progress.event_count:,} of {progress.total:,} events"
        seconds = time.monotonic() - self._began
        count = progress.event_count - self._first_count
        if count <= 0 or seconds <= 0:
            return counts
        rate = count / seconds
        left_s = max(progress.total - progress.event_count, 0) / rate
        return f"{counts}, {rate:,.0f}/s, {words.duration(left_s)} left"

    def _print(self, line: str) -> None:
        page.console(is_error=True).print(line)


def _missing(progress: RebuildProgress) -> str | None:
    """How much is left to do for a start that resumes an earlier one."""
    if not progress.done_before:
        return None
    missing = max(progress.total - progress.done_before, 0)
    return (
        f"resuming a rebuild that was interrupted: {progress.done_before:,} of {progress.total:,} "
        f"events are folded, {missing:,} are missing"
    )


def _sentence(progress: RebuildProgress) -> str:
    return progress.phase.value + (f" {progress.projection}" if progress.projection else "")
