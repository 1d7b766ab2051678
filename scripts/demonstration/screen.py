"""What a person sees: captions, a bar where it waits, and at the end the proof."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

NARROWEST: Final = 100
BAR_WIDTH: Final = 40
INDENT: Final = 2


class Screen:
    """Writes to a terminal, or without colours and bars to whatever there is instead."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, NARROWEST)
        self._began_at = datetime.now(UTC)

    def time_of(self, moment: datetime) -> str:
        """The seconds from the beginning of all to this moment."""
        return f"{(moment - self._began_at).total_seconds():.1f} s"

    @property
    def time(self) -> str:
        """The seconds since the beginning of all."""
        return self.time_of(datetime.now(UTC))

    def title(self, text: str) -> None:
        """The heading of what follows."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(Padding(text, (0, 0, 0, INDENT), expand=False))

    def caption(self, text: str) -> None:
        """What is happening now."""
        self.columns([(f"[dim]{self.time:>6}[/dim]", text)])

    def columns(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Rows of which only the last column may need more than one line."""
        grid = Table.grid(padding=(0, INDENT, 0, 0))
        for row in rows:
            while len(grid.columns) < len(row) - 1:
                grid.add_column(no_wrap=True)
            grid.add_row(*row)
        self.console.print(Padding(grid, (0, 0, 0, INDENT), expand=False))

    @contextmanager
    def bar(self, total: int) -> Iterator[Callable[[int], None]]:
        """A bar, to be told how many of these files are done."""
        columns = (
            TextColumn("  "),
            BarColumn(BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("files"),
            TimeElapsedColumn(),
        )
        is_hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, disable=is_hidden, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.update(task, completed=count)
