"""Check that names, comments, docstrings, texts and pages use the project's vocabulary.

    python -m scripts.vocabulary [FILE]...

Each finding is printed as `file:line: "found": say …`; with any, the exit code is 1. Without files,
the whole project is checked. docs/glossary.md explains the words to use.
"""

import io
import os
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]

FOLDERS: Final = (".ci", "docs", "domain", "projections", "recovery_journal", "scripts", "tests")

INSTEAD: Final[dict[str, str]] = {
    r"tells?|told|telling|untold": "report, notify, record, show",
    r"nobody": "the process or the worker; no worker, no caller",
    r"whoever|whomever": "the process, any worker that",
    r"go(es)? on|went on|going on|gone on": "resume, advance, continue, proceed",
    r"anew|once more": "again, from scratch",
    r"shrugs?": "is idempotent",
    r"(is|are|was) no news": "has no effect when repeated",
    r"ask(s|ed|ing)? again": "retry",
    r"(it|that|this) is looked|an? look|looks? again|looked (at|for)|looks? (at|for|into)"
    r"|looking (at|for|into)|to look": "check, poll, inspect, query, search",
    r"comes? to|came to|leads? to|led to": "results in, ends in",
    r"given up for|held against": "quarantined because, counted against",
    r"mend(s|ed|ing)?": "fix, repair",
    r"blows?": "fault",
    r"calm sea": "baseline run",
}
"""Words to avoid, each as a regular expression for whole words, and the words to use. In names,
`go_on` and `goOn` count as `go on`."""

RENAMED: Final[dict[str, str]] = {
    "Often": "Throttle",
    "uncollected": "gc_paused",
    "legible": "translating_read_errors",
    "storable": "translating_write_errors",
    "Kept": "RunSnapshot",
    "Taken": "LockedLease",
    "Told": "HistoryStep",
    "Found": "SweepWork, or another noun",
    "Begun": "RebuildState",
    "Wanted": "ClaimRequest",
    "Swept": "SweepResult",
    "distrust": "quarantine_diverged",
    "give_back": "requeue",
    "askers": "code_version_demand",
    "Bell": "WakeEvent",
    "SessionSight": "SessionObservations",
    "fruitless_count": "recoveries_without_progress",
    "excused_count": "fleet_losses_without_progress",
}
"""Names that the code had once, and the better ones."""

BEGINNING: Final = re.compile(
    r"(?:\A|[.:;|]\s+|\n\s*\n\s*)(?P<word>Who|What|Whoever|Nobody)\b(?![^.?!:\n]*\?)"
)
"""The beginning of a sentence that names no subject. A question may begin so."""

SUBJECT: Final = "name the subject: the sweeper, the claimer, the operator"


class Allowance(NamedTuple):
    """An exception: the files, the words, and the reason."""

    files: str
    words: str
    reason: str


ALLOWED: Final = (
    Allowance("scripts/vocabulary.py", ".*", "the table of words to avoid"),
    Allowance("tests/test_vocabulary.py", ".*", "shows that each of them is found"),
    Allowance("CHANGELOG.md", ".*", "names what public names were before"),
    Allowance("tests/test_embedded_folders.py", "nobody", "the account of that name"),
    Allowance("tests/test_shell.py", "nobody", "the account of that name"),
)


class Finding(NamedTuple):
    """One place where another word is needed."""

    file: str
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.found!r}: {self.instead}"


class Piece(NamedTuple):
    """A text of a file: its first line, and whether it is a name or prose."""

    line: int
    text: str
    is_name: bool = False


PHRASES: Final = {
    re.compile(rf"\b(?:{words.replace(' ', chr(92) + 's+')})\b", re.IGNORECASE): f"say {instead}"
    for words, instead in INSTEAD.items()
}
PARTS_OF_NAME: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
QUOTES: Final = re.compile(r"""\A[rbfuRBFU]*(\"\"\"|'''|"|')|(\"\"\"|'''|"|')\Z""")


def pieces_of(path: Path) -> Iterator[Piece]:
    """The names, comments and strings of a Python file; of another file, all of it."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py" or source.startswith("#!/usr/bin/env python"):
        yield from _python_pieces(source)
    else:
        yield Piece(1, source)


def _python_pieces(source: str) -> Iterator[Piece]:
    comment: list[str] = []
    began = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            if line != last + 1:
                yield Piece(began, "\n".join(comment))
                comment, began = [], line
            comment.append(token.string.lstrip("# "))
            last = line
        elif token.type == tokenize.NAME:
            yield Piece(line, token.string, is_name=True)
        elif token.type == tokenize.STRING:
            yield Piece(line, QUOTES.sub("", token.string))
        elif tokenize.tok_name[token.type] == "FSTRING_MIDDLE":  # from Python 3.12 on
            yield Piece(line, token.string)
    yield Piece(began, "\n".join(comment))


def findings_in(path: Path, name: str) -> Iterator[Finding]:
    """The findings in this file, which is called `name`."""
    allowed = [it.words for it in ALLOWED if fnmatch(name, it.files)]
    for piece in pieces_of(path):
        found_here = in_name(piece.text) if piece.is_name else in_prose(piece.text)
        for at, found, instead in found_here:
            if not any(re.fullmatch(words, found, re.IGNORECASE) for words in allowed):
                yield Finding(name, piece.line + piece.text.count("\n", 0, at), found, instead)


@cache
def in_name(name: str) -> tuple[tuple[int, str, str], ...]:
    """(0, found words, advice) for each finding in this name."""
    renamed = [(0, name, f"say {RENAMED[name]}")] if name in RENAMED else []
    found = in_prose(PARTS_OF_NAME.sub(" ", name))
    return (*renamed, *((0, words, instead) for _, words, instead in found if instead != SUBJECT))


def in_prose(text: str) -> Iterator[tuple[int, str, str]]:
    """(offset, found words, advice) for each finding in this text."""
    for found in BEGINNING.finditer(text):
        yield found.start("word"), found["word"], SUBJECT
    for phrase, instead in PHRASES.items():
        for found in phrase.finditer(text):
            yield found.start(), " ".join(found[0].split()), instead


def all_files() -> list[str]:
    """The project's text files, without the targets of links: in a checkout and in an archive."""
    found = [path for path in ROOT.iterdir() if path.suffix == ".md"]
    for folder in FOLDERS:
        for place, _, names in os.walk(ROOT / folder):  # follows no links
            found += [Path(place, name) for name in names]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if _is_text(path))


def _is_text(path: Path) -> bool:
    is_known = path.suffix in {"", ".md", ".py", ".sql"} and not path.name.startswith(".")
    return is_known and path.is_file() and not path.is_symlink()


def findings(names: Iterable[str]) -> list[Finding]:
    """The findings of these files, named from the checkout's top or absolutely."""
    return [finding for name in names for finding in findings_in(ROOT / name, name)]


def main(names: Sequence[str]) -> int:
    """Print the findings; return the exit code."""
    found = findings(names or all_files())
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
