"""Sentences, tables and progress for people; figures for programs."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

NARROWEST: Final = 140
INDENT: Final = 2
LINE_S: Final = 10.0  # between lines where there is no terminal
FRAME_S: Final = 0.2


class Screen:
    """Writes to a terminal, or without colours and bars to whatever there is instead.

    `for_figures` leaves standard output to `show_json` and writes to standard error.
    """

    def __init__(self, console: Console | None = None, *, for_figures: bool = False) -> None:
        self.console = console or Console(stderr=for_figures, highlight=False)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, NARROWEST)
        self._began_at = datetime.now(UTC)
        self._shown_at = 0.0

    def time_of(self, moment: datetime) -> str:
        """The seconds from the start of the program to this moment."""
        return f"{(moment - self._began_at).total_seconds():.1f} s"

    @property
    def time(self) -> str:
        """The seconds since the start of the program."""
        return self.time_of(datetime.now(UTC))

    def title(self, text: str) -> None:
        """The heading of what follows."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str) -> None:
        """A sentence, as it is."""
        self.console.print(escape(text), soft_wrap=True)

    def show(self, text: str) -> None:
        """An indented sentence with markup."""
        self.console.print(Padding(text, (0, 0, 0, INDENT), expand=False))

    def caption(self, text: str) -> None:
        """A line with the time and the present act, with markup."""
        self.columns([(f"[dim]{self.time:>6}[/dim]", text)])

    def columns(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Rows of which only the last column may need more than one line."""
        grid = Table.grid(padding=(0, INDENT, 0, 0))
        for row in rows:
            while len(grid.columns) < len(row) - 1:
                grid.add_column(no_wrap=True)
            grid.add_row(*row)
        self.console.print(Padding(grid, (0, 0, 0, INDENT), expand=False))

    def show_json(self, figures: Any) -> None:  # noqa: ANN401 - whatever can be encoded
        """One JSON object, on standard output."""
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
        sys.stdout.flush()

    @contextmanager
    def bar(
        self, total: float, what: str, unit: str = "s", *, is_spoken: bool = True
    ) -> Iterator[Callable[[float, str], None]]:
        """A progress bar on a terminal, else a line now and then. The caller reports how much is
        done, and what else there is to say. It has no thread of its own, because we fork."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(30),
            TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {unit}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        is_terminal = self.console.is_terminal
        with Progress(
            *columns,
            console=self.console,
            auto_refresh=False,
            disable=not is_terminal,
            transient=True,
        ) as bar:
            task = bar.add_task(what, total=total, text="")

            def show(done: float, text: str = "") -> None:
                now = time.monotonic()
                if now < self._shown_at + (FRAME_S if is_terminal else LINE_S):
                    return
                self._shown_at = now
                bar.update(task, completed=min(done, total), text=text, refresh=is_terminal)
                if is_spoken and not is_terminal:
                    self.say(f"{what}: {done:.0f} of {total:.0f} {unit}, {text}")

            yield show
