"""The output of commands: tables and lines for people, JSON for programs, both on standard output.

Off a terminal nothing is cut or wrapped, so that ids can be searched for and cut out.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TextIO

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from recovery_journal.cli import words

UNLIMITED_WIDTH: Final = 10_000
TERMINAL_WIDTH: Final = 80
LONGEST_NUMBER: Final = 5  # digits

NAMES_BY_STYLE: Final = {
    "green": "held completed following lease-granted dispatched",
    "red": "expired failed lease-expired step-failed",
    "yellow": "recovering reloaded replayed rebuilding checkpoint-reloaded",
    "cyan": "ready ready-for-dispatch",
    "magenta": "waiting",
    "bold red": "quarantined stopped stale-write-refused",
    "dim": "ended cancelled not_of_this_program",
    "bold yellow": "outdated",
    "bold": "lease-ended",
}
STYLES: Final = {name: style for style, names in NAMES_BY_STYLE.items() for name in names.split()}


def console(*, is_error: bool = False) -> Console:
    """The present console, which writes to the present standard output."""
    stream = sys.stderr if is_error else sys.stdout
    width = _width(stream)
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _width(stream: TextIO) -> int | None:
    """$COLUMNS, where it is a number; else the terminal's own width, and unlimited off a
    terminal."""
    columns = os.environ.get("COLUMNS")
    if columns and columns.isascii() and columns.isdigit() and int(columns[:LONGEST_NUMBER]) > 0:
        return int(columns[:LONGEST_NUMBER])
    if not stream.isatty():
        return UNLIMITED_WIDTH
    return None if columns is None else TERMINAL_WIDTH


def show(*parts: RenderableType) -> None:
    """Print these, each on lines of its own, with nothing invisible at the ends of lines."""
    out = console()
    if out.is_terminal:
        out.print(*parts, sep="\n")
    else:
        with out.capture() as capture:
            out.print(*parts, sep="\n")
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
    sys.stdout.flush()


def show_result(document: object, parts: Iterable[RenderableType], *, as_json: bool) -> None:
    """Print what a command found or did: the document for programs, or its parts for people."""
    if as_json:
        _write_json(document, indent=2)
    else:
        show(*parts)


def show_json_line(document: object) -> None:
    """Print one document of a stream, on one line."""
    _write_json(document)


def json_text(document: object, *, indent: int | None = None) -> str:
    """A document as JSON of printable ASCII, so that nothing stored can control a terminal, and
    every encoding has its characters."""
    values = json.loads(msgspec.json.encode(document))
    separators = None if indent else (",", ":")
    return json.dumps(values, indent=indent, separators=separators).replace("\x7f", "\\u007f")


def _write_json(document: object, *, indent: int | None = None) -> None:
    sys.stdout.write(f"{json_text(document, indent=indent)}\n")
    sys.stdout.flush()


def text(content: object, style: str = "") -> Text:
    """Text that is shown unchanged, except that unprintable characters are escaped."""
    return Text(words.plain(str(content)), style=style)


def styled(name: str) -> Text:
    """A stored name, such as a stage or an event's tag, in its fixed colour."""
    return text(words.spaced(name), STYLES.get(name, ""))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()
) -> Table:
    """Aligned columns, those of `numbers` to the right. On a narrow terminal long cells continue in
    the next line; none is cut."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for heading in headings:
        is_number = heading in numbers
        made.add_column(
            heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def more(count: int, shown: int, where: str = "") -> Iterator[Text]:
    """A line for those that are left out, where any are."""
    if count > shown:
        yield Text(f"and {count - shown:,} more{where}", style="dim")


def pairs(rows: Iterable[tuple[str, object]], *, indent: int = 0) -> Table:
    """Names and their values, one pair a line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        shown = value if isinstance(value, Text) else text(value)
        made.add_row(Text(" " * indent + name), shown)
    return made
