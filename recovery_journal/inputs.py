"""Validates every argument before anything is written, so that no bad input is half written."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from recovery_journal.domain.errors import InvalidInput
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.ranges import YEAR_S, require_kind, require_number
from recovery_journal.domain.wording import shown
from recovery_journal.postgres.session_settings import Durability
from recovery_journal.process.callables import functions_called
from recovery_journal.projections.projection import Projection, RowT

LONGEST_ID: Final = 200  # characters
LONGEST_TEXT: Final = 2_000  # characters, for reasons and messages
LONGEST_DURATION: Final = timedelta(days=365)
SHORTEST_TTL: Final = timedelta(milliseconds=100)
LARGEST_BATCH: Final = 10_000
LARGEST_DEMAND: Final = 1_000  # kinds times code versions: each pair is a row that records it
PROCESSES: Final = range(1, 257)
PRIORITIES: Final = range(-(2**31), 2**31)
POSITIONS: Final = range(2**63)
VERSIONS: Final = range(1, 2**63)
SESSION_LOCKS: Final = range(-(2**31), 2**31)
ATTEMPTS: Final = range(2**63)

CallableT = TypeVar("CallableT")
MemberT = TypeVar("MemberT", bound=StrEnum)


def identifier(name: str, value: object) -> str:
    """An id: 1 to 200 characters of any Unicode but NUL and lone surrogates."""
    found = _text(name, value)
    if not 0 < len(found) <= LONGEST_ID:
        raise refused(
            name, f"{len(found)} characters", f"1 to {LONGEST_ID} characters", "choose another id"
        )
    return found


def label(name: str, value: object) -> str:
    """Like an id, but it may be empty: a tenant, a code version."""
    return "" if value == "" else identifier(name, value)


def text(name: str, value: object, *, is_needed: bool = False) -> str:
    """A reason or message for people, of at most 2,000 characters."""
    found = _text(name, value)
    if len(found) > LONGEST_TEXT:
        raise refused(
            name, f"{len(found)} characters", f"at most {LONGEST_TEXT} characters", "shorten it"
        )
    if is_needed and not found.strip():
        raise refused(name, "nothing", "some words", "give them: they are kept for the auditor")
    return found


def _text(name: str, value: object) -> str:
    """Text that a column can hold."""
    if not isinstance(value, str):
        raise refused(name, type(value).__name__, "text", "pass a string")
    if "\0" in value:
        raise refused(name, "a NUL character", "text without NUL", "remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(
            name, "a lone surrogate", "text that UTF-8 can encode", "decode it properly first"
        ) from None
    return value


def duration(
    name: str, value: object, *, shortest: timedelta, longest: timedelta = LONGEST_DURATION
) -> float:
    """A duration in seconds, from `shortest` to `longest`: at most a year by default."""
    if not isinstance(value, timedelta):
        raise refused(name, type(value).__name__, "a timedelta", "pass a timedelta")
    if not shortest <= value <= longest:
        needed = f"{shortest.total_seconds():g} s to {longest.days} days"
        raise refused(name, f"{value.total_seconds():g} s", needed, "choose one within")
    return value.total_seconds()


def moment(name: str, value: object) -> datetime:
    """A point in time with its time zone."""
    if not isinstance(value, datetime):
        raise refused(name, type(value).__name__, "a datetime", "pass a datetime")
    try:
        is_aware = value.utcoffset() is not None
    except Exception:  # noqa: BLE001 - a time zone of the user's own may raise anything
        is_aware = False
    if not is_aware:
        raise refused(
            name, "a datetime without time zone", "one with a time zone", "add tzinfo, such as UTC"
        )
    return value


def folder(name: str, value: object) -> Path:
    """The path of a folder, as text or as any path."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        found = f"{type(value).__name__} {shown(value)}"
        raise refused(name, found, "the path of a folder", "pass a string or a Path")
    if not path or "\0" in path:
        raise refused(name, shown(path), "the path of a folder", "name one")
    return Path(path)


def whole_number(name: str, value: object, allowed: range) -> int:
    """An integer within a range."""
    require_number(name, value, allowed[0], allowed[-1])
    assert isinstance(value, int)
    return value


def seconds(name: str, value: object, *, longest_s: float = YEAR_S) -> float:
    """A length of time as a number of seconds."""
    require_number(name, value, 0.0, longest_s)
    assert isinstance(value, int | float)
    return value


def flag(name: str, value: object) -> bool:
    """Yes or no."""
    require_kind(name, value, bool, "True or False")
    assert isinstance(value, bool)
    return value


def function(name: str, value: CallableT) -> CallableT:
    """A function whose call does its work: a plain one, or `async def` where the caller awaits it.
    A call of a generator function would run none of its code."""
    if not callable(value):
        raise refused(name, shown(value), "a function", "pass one")
    if _is_any(value, isgeneratorfunction, isasyncgenfunction):
        do = "return the result, and record run steps through the lease"
        raise refused(name, "a generator function", "a function that returns its result", do)
    return value


def plain_function(name: str, value: CallableT) -> CallableT:
    """A function that is called and not awaited."""
    if _is_any(function(name, value), iscoroutinefunction):
        do = "pass a plain function: nothing awaits this one"
        raise refused(name, "an async function", "a function that returns its result", do)
    return value


def _is_any(value: object, *kinds: Callable[[object], bool]) -> bool:
    """Whether a function that a call of this object calls is of one of these kinds."""
    return any(kind(called) for called in functions_called(value) for kind in kinds)


def observer(name: str, value: object) -> None:
    """A plain function of one argument. One whose signature cannot be read is accepted as it is."""
    plain_function(name, value)
    assert callable(value)
    try:
        described = signature(value)
    except (TypeError, ValueError):
        return
    try:
        described.bind(None)
    except TypeError:
        raise refused(name, shown(value), "a function of one argument", "pass one") from None


def having(name: str, value: object, needed: str, *attributes: str) -> None:
    """An object that has these attributes, as every object of the needed kind has."""
    if not all(hasattr(value, attribute) for attribute in attributes):
        raise refused(name, shown(value), needed, "pass one")


def batch_limit(value: object) -> int:
    """The largest number of attempts to take at once."""
    return whole_number("limit", value, range(1, LARGEST_BATCH + 1))


def names(name: str, values: Iterable[str] | None) -> list[str] | None:
    """A filter: None for no filter, else a list of ids."""
    if values is None:
        return None
    return [label(name, value) for value in several(name, values)]


def demand(kinds: Sequence[str] | None, code_versions: Sequence[str] | None) -> None:
    """Refuse a claim for too many kinds in too many code versions."""
    kind_count = 1 if kinds is None else len(kinds)
    version_count = 1 if code_versions is None else len(code_versions)
    if code_versions is not None and kind_count * version_count > LARGEST_DEMAND:
        raise refused(
            "code_versions",
            f"{kind_count:,} kinds times {version_count:,} code versions",
            f"at most {LARGEST_DEMAND:,} pairs of them",
            "claim fewer kinds, or name the versions that are in use",
        )


def several(name: str, values: Iterable[Any]) -> list[Any]:
    """The values as a list of limited length, so that an endless iterable is refused."""
    if isinstance(values, str):
        raise refused(name, "one string", "a list of strings", "put it in a list")
    if not isinstance(values, Iterable):
        raise refused(name, shown(values), "a list", "pass a list")
    found = list(islice(values, LARGEST_BATCH + 1))
    if len(found) > LARGEST_BATCH:
        raise refused(
            name, f"more than {LARGEST_BATCH:,}", f"at most {LARGEST_BATCH:,}", "pass fewer"
        )
    return found


def functions(
    name: str, values: object, accept: Callable[[str, Any], Any] = function
) -> dict[str, Any]:
    """Functions by kind of run; `accept` validates each."""
    require_kind(name, values, Mapping, "a dict of functions by kind")
    assert isinstance(values, Mapping)
    return {
        identifier(f"a kind of {name}", kind): accept(f"{name}[{shown(kind)}]", found)
        for kind, found in values.items()
    }


def label_filter(name: str, value: object) -> str | None:
    """A filter of one value: None for no filter."""
    return None if value is None else label(name, value)


def session_lock(value: object) -> int | None:
    """The number of a session lock; None for none."""
    return None if value is None else whole_number("session_lock", value, SESSION_LOCKS)


def lift_option(value: object) -> LiftOption:
    """The option by which a quarantined attempt proceeds."""
    return _member("option", value, LiftOption)


def loss_reason(value: object) -> LossReason:
    """The evidence on which a lease is declared lost."""
    return _member("loss", value, LossReason)


def durability(value: object) -> Durability:
    """The moment from which a write counts as done."""
    return _member("durability", value, Durability)


def _member(name: str, value: object, kind: type[MemberT]) -> MemberT:
    """A member of an enumeration, or its value as text."""
    if isinstance(value, str) and value in set(kind):
        return kind(str(value))
    raise refused(name, shown(value), " or ".join(kind), "choose one of them")


def projection(value: Projection[RowT] | str, known: Sequence[Projection[Any]]) -> Projection[RowT]:
    """A projection of the journal: found by the same object, by another one of its class, or by its
    name."""
    name = value if isinstance(value, str) else getattr(value, "name", value)
    for one in known:
        if one.name == name and (isinstance(value, str) or type(one) is type(value)):
            return one
    raise refused(
        "projection",
        shown(name),
        f"one that the journal was opened with: {', '.join(one.name for one in known)}",
        "open the journal with projections=[...]",
    )


def projections(
    names: Sequence[str] | None, known: Sequence[Projection[Any]]
) -> tuple[Projection[Any], ...]:
    """The journal's projections that have these names, in the journal's order; None for all."""
    if names is None:
        return tuple(known)
    if isinstance(names, str) or not (found := several("names", names)):
        raise refused("names", shown(names), "a list of names of projections", "pass such a list")
    wanted = {projection(name, known).name for name in found}
    return tuple(one for one in known if one.name in wanted)


def event_id(value: str | None) -> str:
    """The caller's id of a decision, which makes a retry after a lost reply idempotent; else a new
    id."""
    return uuid4().hex if value is None else identifier("event_id", value)


def refused(name: str, found: str, needed: str, do: str) -> InvalidInput:
    """The error to raise for an argument."""
    return InvalidInput(name, found=found, needed=needed, do=do)
