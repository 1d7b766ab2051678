"""Sentences and progress for people, on standard error: standard output is `--json`'s."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LINE_S: Final = 10.0  # between lines where there is no terminal
FRAME_S: Final = 0.2


class Screen:
    """What a person sees while real processes are at work, and a program by `--json`."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.console = Console(stderr=True, highlight=False)
        self._spoken_at = 0.0

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(escape(text), soft_wrap=True)

    def show_json(self, figures: Any) -> None:  # noqa: ANN401 - whatever can be encoded
        """For a program, if one was promised them."""
        if self._is_json:
            sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
            sys.stdout.flush()

    @contextmanager
    def bar(self, total_s: float, what: str) -> Iterator[Callable[[float, str], None]]:
        """A progress bar on a terminal, else a line now and then; to be told how long it has gone
        on, and what else there is to say. It has no thread of its own: we fork."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        is_terminal = self.console.is_terminal
        with Progress(
            *columns, console=self.console, auto_refresh=False, disable=not is_terminal
        ) as bar:
            task = bar.add_task(what, total=total_s, told="")

            def show(spent_s: float, told: str) -> None:
                now = time.monotonic()
                if now < self._spoken_at + (FRAME_S if is_terminal else LINE_S):
                    return
                self._spoken_at = now
                bar.update(task, completed=min(spent_s, total_s), told=told, refresh=is_terminal)
                if not is_terminal:
                    self.say(f"{what}: {spent_s:.0f} s of {total_s:.0f} s, {told}")

            yield show
