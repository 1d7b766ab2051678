"""Every command and every option of the command line, found by inspection, with words to type."""

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import typer
from hypothesis import strategies as st

from recovery_journal.cli.main import app


class Parameter(NamedTuple):
    """An option, by the name that one types, or an argument, which has none."""

    name: str
    option: str | None
    is_flag: bool
    is_required: bool


class Line(NamedTuple):
    """A command, as it is typed, and what it takes."""

    words: tuple[str, ...]
    parameters: tuple[Parameter, ...]


ENDLESS: Final = frozenset({"--follow"})
"""It continues until it is stopped, as it should."""

RIGHT: Final[Mapping[str, Sequence[str]]] = {
    "after": ("0", "1"),
    "app_name": ("their_app:app", "their_app:broken", "their_app:raises", "their_exit:app"),
    "at": ("1", "2h", "2031-03-03T14:00", "2031-03-03T14:00:00+01:00"),
    "attempt": ("held", "ready#1", "waiting", "ended", "unknown"),
    "by": ("me",),
    "data": (),
    "dsn": (),
    "durability": ("full", "relaxed"),
    "incarnation": ("boot:1:1",),
    "keep_checkpoints": ("2", "10"),
    "kind": ("report",),
    "limit": ("1", "100"),
    "names": ("moments", "workers"),
    "older_than": ("30d", "0s"),
    "on_quarantine": ("true",),
    "option": ("retry", "restart"),
    "position": ("1", "2", "1000000"),
    "process_count": ("1",),
    "reason": ("to see",),
    "recovery": ("0", "1"),
    "schema": (),
    "tenant": ("acme",),
    "version": ("1", "2"),
    "worker": ("unknown", "worker of held"),
}

WORDS: Final = (
    *("", " ", "-", "--", "a", "held", "\0", "a\0b", "\ud800", "a\udcff", "\U0001f4a9", "x" * 300),
    *(
        "x" * 5_000,
        "%s",
        "{}",
        "[bold]",
        "'; DROP TABLE leases; --",
        "\\",
        "\u202e",
        "\n",
        "\x1b[2J",
    ),
    *("-1", "0", "1e3", "nan", "inf", "2147483648", "9223372036854775807", "9223372036854775808"),
    *("9" * 5_000, "٣", "0x10", "1_0", "9999999999d", "0.0000001s", "1e9d", "30 d", "2031-02-30"),
    *(
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "24:00",
        "@1",
        "a#0",
        "a#" + "9" * 190,
    ),
    *("--json", "--help", "--version", "--no-such", "-f", "-x", "=", "--by=", "--limit=1"),
)
DSNS: Final = (
    *("", " ", "nonsense", "postgresql://[", "postgresql://a\0b", "host=\ud800", "port=x"),
    *("postgresql://127.0.0.1:1/nowhere?connect_timeout=2", "host=/nowhere", "port=99999999"),
    *("service=nowhere", "sslmode=nonsense", "x" * 5_000),
)
SCHEMAS: Final = ("", "x" * 64, "pg_mine", "$user", "a\0b", "\ud800", "é" * 40)
FOLDERS: Final = (
    *("a\0b", "\ud800", "x" * 5_000, "/proc/1/nowhere", "a_file", "a_file/below", "damaged"),
    *("~no-such-user/x",),
)
APPS: Final = (
    *("their_app", ":", "a:", ":a", "their_app:nothing", "their_app:app.more", "their_app:broken"),
    *("their_syntax:app", "their_bytes:app", "their_exit:app", "their_interrupt:app", "a b:c"),
    *("..:a", ".:a", "\0:a", "\ud800:a", "their_app:\ud800", "x" * 5_000 + ":a", "os:system"),
    *("their_app:number", "their_app:raises", "their_app:deep", "their_app:bad_reducers"),
    *("their_app:bad_projections", "their_app:text", "their_app:takes_one"),
)
HOOKS: Final = ("", " ", "'", "no-such-program", "true a\0b", "\ud800", "false", "/", "x" * 5_000)
SPECIAL: Final[Mapping[str, Sequence[str]]] = {
    "app_name": APPS,
    "data": FOLDERS,
    "dsn": DSNS,
    "schema": SCHEMAS,
    "on_quarantine": HOOKS,
    "process_count": [word for word in WORDS if not word.strip().isdigit()] + ["0", "257"],
}
"""Words for what would otherwise begin servers, make schemas, or fork hundreds of processes."""

FILES: Final[Mapping[str, bytes]] = {
    "a_file": b"",
    "damaged/data/PG_VERSION": b"\xff\0nonsense",
    "their_app.py": b"""
import recovery_journal as rj
app = rj.App()
broken = object()
number = 10**5000
text = "\\ud800"
bad_reducers = rj.App(reducers={1: print, "a": 2})
bad_projections = rj.App(projections=(object(), 7))
def raises(): raise ValueError("\\0\\ud800")
def deep(): return deep()
def takes_one(one): return one
""",
    "their_syntax.py": b"def (:",
    "their_bytes.py": b"\xff\xfe\0",
    "their_exit.py": b"raise SystemExit(0)",
    "their_interrupt.py": b"raise SystemExit('no')",
}


def lines() -> list[Line]:
    """All of them; the program itself is the one without words."""
    return list(_lines(typer.main.get_command(app), ()))


def _lines(command: Any, words: tuple[str, ...]) -> Iterator[Line]:
    parameters = tuple(
        Parameter(
            name=it.name,
            option=it.opts[0] if it.opts[0].startswith("-") else None,
            is_flag=bool(getattr(it, "is_flag", False)),
            is_required=it.required,
        )
        for it in command.params
    )
    below = getattr(command, "commands", {})
    if parameters or not below:
        yield Line(words, parameters)
    for name, one in below.items():
        yield from _lines(one, (*words, name))


def typed(line: Line, globals_: Line) -> st.SearchStrategy[list[str]]:
    """This command with its options and the global ones left out, right, or anything."""
    words = [st.just(list(line.words))]
    if line is not globals_:
        words += [_typed(it, is_rare=True) for it in globals_.parameters]
    words += [_typed(it) for it in line.parameters if it.option not in ENDLESS]
    return st.tuples(*words).map(lambda parts: [word for part in parts for word in part])


def _typed(it: Parameter, *, is_rare: bool = False) -> st.SearchStrategy[list[str]]:
    absent = st.just(list[str]())
    if it.is_flag:
        return st.sampled_from(([], [str(it.option)])) if not is_rare else absent
    right = [st.just(word) for word in RIGHT[it.name]]
    anything = st.sampled_from(SPECIAL.get(it.name, WORDS))
    if it.name not in SPECIAL:
        anything |= st.text(alphabet=string.printable, max_size=8)
    given = st.one_of([*right, *right, anything]).map(
        lambda word: [word] if it.option is None else [it.option, word]
    )
    if it.is_required:
        return st.one_of(given, given, given, absent)
    return st.one_of(*[absent] * (8 if is_rare else 1), given)
