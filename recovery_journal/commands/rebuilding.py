"""Watching a rebuild: a progress bar on a terminal, plain lines elsewhere, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recovery_journal.commands import page
from recovery_journal.rebuilding.rebuild import Phase, RebuildProgress

Watch = Callable[[RebuildProgress], None]


@contextmanager
def watching(*, is_silent: bool) -> Iterator[Watch]:
    """What to tell of each progress; says nothing where standard error is for programs."""
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
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=page.console(is_error=True), transient=True) as progress:
        task = progress.add_task("reading the log", total=None)

        def show(told: RebuildProgress) -> None:
            # Positions have gaps, so the last block may end below the total.
            is_read = told.phase is not Phase.FOLDING
            progress.update(
                task,
                description=_sentence(told),
                completed=told.total if is_read else told.event_count,
                total=told.total,
            )

        yield show


class _Lines:
    """One line for each new phase, and while the log is read for each tenth of it."""

    def __init__(self) -> None:
        self._told: tuple[str, int] | None = None

    def __call__(self, told: RebuildProgress) -> None:
        tenths = 10 * told.event_count // max(told.total, 1)
        now = (_sentence(told), tenths if told.phase is Phase.FOLDING else 0)
        if now == self._told:
            return
        self._told = now
        count = f": {told.event_count:,} of {told.total:,} events"
        line = now[0] + (count if told.phase is Phase.FOLDING else "")
        page.console(is_error=True).print(line)


def _sentence(told: RebuildProgress) -> str:
    return told.phase.value + (f" {told.projection}" if told.projection else "")
