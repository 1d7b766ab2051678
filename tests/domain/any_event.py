"""Any event whatever, for properties that must hold of all of them."""

from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain.bounds import EARLIEST, LATEST
from recovery_journal.domain.events import AnyEvent, LeaseGranted, RecoveryEvent
from tests.domain.specimens import ATTEMPT_ID

CALENDAR = (EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None))
EVERY_CLASS: tuple[type[RecoveryEvent], ...] = get_args(AnyEvent)


@cache
def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field of this type, as the checks of input let them come: numbers finite and
    of 64 bits, times in UTC and not at the ends of the calendar."""
    if get_origin(hint) is Annotated:
        plain, limits = get_args(hint)
        if plain is int:
            return st.integers(max(limits.ge, 0), limits.le)
        return st.floats(limits.ge, limits.le) if plain is float else values(plain)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of([values(choice) for choice in get_args(hint)])
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=3).map(tuple)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    if issubclass(hint, Struct):
        hints = get_type_hints(hint, include_extras=True)
        return st.builds(hint, **{name: values(hints[name]) for name in hint.__struct_fields__})
    simple: dict[type, st.SearchStrategy[Any]] = {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(0, 2**63 - 1),
        str: st.text(max_size=8),
        datetime: st.datetimes(*CALENDAR, timezones=st.just(UTC)),
    }
    return simple[hint]


def events() -> st.SearchStrategy[AnyEvent]:
    """Events of every class, with any values in their fields."""
    return st.one_of([values(of) for of in EVERY_CLASS])


@st.composite
def streams(draw: st.DrawFn) -> tuple[AnyEvent, ...]:
    """A grant, and then anything at all; only the versions are in order."""
    drawn = [draw(values(LeaseGranted)), *draw(st.lists(events(), max_size=8))]
    return tuple(
        replace(event, originator_id=ATTEMPT_ID, originator_version=version)
        for version, event in enumerate(drawn, start=1)
    )
