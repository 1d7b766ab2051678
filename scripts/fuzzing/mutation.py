"""Changes of a log that keep it a log: of rows, of their columns, of the JSON in their states.

Bytes changed at random are hardly ever JSON again, and then only the parser is tried. So most
changes are made to what the bytes mean; the rest is left to the library's own.
"""

import json
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from random import Random
from typing import Any, Final, TypeAlias

from recovery_journal.domain import events
from recovery_journal.log.mapper import TAGS
from scripts.fuzzing.stored import LINE, PART, PART_COUNT

ENUMERATIONS: Final[list[type[StrEnum]]] = [
    it
    for it in vars(events).values()
    if isinstance(it, type) and issubclass(it, StrEnum) and it is not StrEnum
]
"""Those of the events' fields."""
NAMES: Final = (*sorted(TAGS), *(str(member) for kind in ENUMERATIONS for member in kind))

NUMBERS: Final = (
    *(0, 1, -1, 2, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63),
    *(-(2**63), -(2**63) - 1, 2**64, 10**30, 1.0, 0.5, -0.0, 1e308, -1e-308),
)
TIMES: Final = (
    "2031-05-06T07:08:09",
    "2031-05-06T07:08:09Z",
    "2031-05-06T07:08:09.123456789Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "2031-02-29T00:00:00Z",
    "2031-05-06 24:00:00Z",
)
TEXTS: Final = (
    *("", " ", "\0", "a\0b", "\ud800", "\U0001f4a9", "\u2028", "e\u0301", "%s", '"', "\\"),
    *("\\u0000", "\\.", "null", "NULL", "\r\n", "\x1b[31m", "a" * 300),
    *("ch1:", ":", "worker", "person"),
)
OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], {"": None})
SHALLOW: Final = (2, 60)
DEEP: Final = (900, 1_100, 3_000, 11_000)
"""Around the decoder's limit: 1,000 levels in Python 3.11, 10,000 in later ones."""
BYTES_SHARE: Final = 0.1
OTHER_KIND_SHARE: Final = 0.2
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]")

Row: TypeAlias = list[bytes]
Change: TypeAlias = Callable[[list[Row], Random], None]


def mutate(log: bytes, random: Random, mutate_bytes: Callable[[bytes], bytes]) -> bytes:
    """This log, with one change or a few."""
    rows = [line.split(PART, PART_COUNT - 1) for line in log.split(LINE)]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(CHANGES)(rows, random)
        if not rows:
            rows = [[b"a", b"1", b"lease-granted", b"1", b"0", b"{}"]]
    changed = LINE.join(PART.join(row) for row in rows)
    return mutate_bytes(changed) if random.random() < BYTES_SHARE else changed


def crossed(one: bytes, other: bytes, random: Random) -> bytes:
    """Some rows of one log and some of another."""
    lines = [line for line in (one + LINE + other).split(LINE) if random.random() < 0.5]
    return LINE.join(lines)


def _change_state(rows: list[Row], random: Random) -> None:
    row = random.choice(rows)
    try:
        state = json.loads(row[-1])
    except (ValueError, RecursionError):
        return
    places = list(_places(state))
    if not places:
        return
    holder, name = random.choice(places)
    _change_place(holder, name, random, rows)
    row[-1] = _encoded(state)


def _change_place(holder: Any, name: Any, random: Random, rows: list[Row]) -> None:  # noqa: ANN401 - JSON
    kind = random.randrange(8)
    if kind == 0:
        del holder[name]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice((*TEXTS, "zz", "fence", "type"))] = holder[name]
    elif kind == 2:
        holder[name] = _deep(random.choice(SHALLOW))
    elif kind == 3:
        holder[name] = _elsewhere(rows, random)
    else:
        holder[name] = _value(holder[name], random)


def _value(before: Any, random: Random) -> Any:  # noqa: ANN401 - JSON
    """Mostly of the same kind, because those pass the decoder."""
    if random.random() < OTHER_KIND_SHARE:
        return random.choice((*NUMBERS, *TIMES, *TEXTS, *OTHERS))
    match before:
        case bool():
            return not before
        case int() | float():
            return random.choice((*NUMBERS, before + 1, before - 1, random.randrange(1000)))
        case str() if TIME.match(before):
            return random.choice(TIMES)
        case str() if before in NAMES:
            return random.choice(NAMES)
        case str():
            return random.choice((*TEXTS, before + random.choice(TEXTS)))
        case None:
            return random.choice((*NUMBERS, *TIMES, *TEXTS))
        case _:
            return random.choice(OTHERS)


def _elsewhere(rows: list[Row], random: Random) -> Any:  # noqa: ANN401 - JSON
    """A part of the state of another row."""
    try:
        state = json.loads(random.choice(rows)[-1])
    except (ValueError, RecursionError):
        return None
    places = list(_places(state))
    if not places:
        return state
    holder, name = random.choice(places)
    return holder[name]


def _change_column(rows: list[Row], random: Random) -> None:
    """A column; where the state says the same, it is made to say it again, or else not."""
    row = random.choice(rows)
    at = random.randrange(len(row))
    before = row[at]
    texts = [it.encode(errors="surrogatepass") for it in TEXTS]
    numbers = [b"%d" % it for it in NUMBERS if isinstance(it, int)]
    tags = [it.encode() for it in sorted(TAGS)]
    row[at] = random.choice((*numbers, *texts, *tags, random.choice(rows)[0]))
    if random.random() < 0.7 and at < 3:
        row[-1] = row[-1].replace(before, row[at], 1)


def _renumber(rows: list[Row], random: Random) -> None:
    """Most rows belong to one stream, with versions and positions from 1 on."""
    stream, version = random.choice(rows)[0], 1
    for position, row in enumerate(rows, start=1):
        if random.random() < 0.7 and len(row) == PART_COUNT:
            row[-1] = row[-1].replace(
                b'"originator_id":"%s","originator_version":%s' % (row[0], row[1]),
                b'"originator_id":"%s","originator_version":%d' % (stream, version),
                1,
            )
            row[0], row[1], row[3] = stream, b"%d" % version, b"%d" % position
            version += 1


def _drop(rows: list[Row], random: Random) -> None:
    rows.pop(random.randrange(len(rows)))


def _repeat(rows: list[Row], random: Random) -> None:
    rows.insert(random.randrange(len(rows) + 1), list(random.choice(rows)))


def _swap(rows: list[Row], random: Random) -> None:
    one, other = random.randrange(len(rows)), random.randrange(len(rows))
    rows[one], rows[other] = rows[other], rows[one]


def _deepen(rows: list[Row], random: Random) -> None:
    """An unknown field, nested deeper than any real one."""
    row = random.choice(rows)
    depth = random.choice(DEEP)
    row[-1] = row[-1].replace(b"{", b'{"zz":' + b"[" * depth + b"]" * depth + b",", 1)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - JSON
    """Every place in a value, parents first: what holds it and under which name.

    Without recursion: from Python 3.12 on, the JSON decoder accepts more levels than Python's own
    functions may call themselves.
    """
    entered = [(value, iter(_items(value)))]
    while entered:
        holder, items = entered[-1]
        for name, part in items:
            yield holder, name
            entered.append((part, iter(_items(part))))
            break
        else:
            entered.pop()


def _items(value: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _deep(depth: int) -> Any:  # noqa: ANN401 - JSON
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _encoded(state: Any) -> bytes:  # noqa: ANN401 - JSON
    try:
        return json.dumps(state, separators=(",", ":"), ensure_ascii=False).encode(
            errors="surrogatepass"
        )
    except (ValueError, RecursionError):
        return b"{}"


CHANGES: Final[tuple[Change, ...]] = (
    *[_change_state] * 8,
    *[_change_column] * 2,
    *(_renumber, _renumber, _drop, _repeat, _swap, _deepen),
)
