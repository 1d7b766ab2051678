"""Every number, time and length of time in an event is one that all can compute with."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Struct

from recovery_journal.domain.bounds import EARLIEST, LARGEST_NUMBER, LATEST, SMALLEST_NUMBER
from recovery_journal.domain.errors import CorruptEvent
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.domain.ranges import YEAR_S
from recovery_journal.log.mapper import decode, decode_states
from recovery_journal.projections.corpus import corpus
from tests.domain.any_event import EVERY_CLASS

Path = tuple[str, ...]

INSTANT = timedelta(microseconds=1)
WITHIN: dict[type, tuple[Any, ...]] = {
    datetime: (EARLIEST, LATEST, LATEST.astimezone(timezone(timedelta(hours=14)))),
    float: (0.0, YEAR_S),
    int: (LARGEST_NUMBER,),
}
BEYOND: dict[type, tuple[Any, ...]] = {
    datetime: (
        EARLIEST - INSTANT,
        LATEST + INSTANT,
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ),
    float: (-1.0, YEAR_S * 1.01, 1e308, -1e-300),
    int: (LARGEST_NUMBER + 1, SMALLEST_NUMBER - 1),
}


def bounded(part: object, path: Path = ()) -> Iterator[tuple[Path, type]]:
    """Where in an event numbers and times stand, and which."""
    if isinstance(part, Struct):
        for name in part.__struct_fields__:
            yield from bounded(getattr(part, name), (*path, name))
    elif type(part) in WITHIN:
        yield path, type(part)


def places() -> dict[str, tuple[AnyEvent, Path, type]]:
    """An example of each place in each class that holds one."""
    return {
        f"{tag_of(event)} {'.'.join(path)}": (event, path, kind)
        for event in (record.event for record in corpus())
        for path, kind in bounded(event)
        if path != ("originator_version",)
    }


PLACES = places()
every_place = pytest.mark.parametrize("place", PLACES)


def with_value(event: AnyEvent, path: Path, value: object) -> bytes:
    """The event's state with another value in this place."""
    state = msgspec.json.decode(msgspec.json.encode(event))
    part = state
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return msgspec.json.encode(state)


def read(event: AnyEvent, state: bytes) -> AnyEvent:
    return decode(
        stream=event.originator_id,
        version=event.originator_version,
        tag=tag_of(event),
        state=state,
        position=7,
    )


def times(kind: type[Struct], path: Path = ()) -> Iterator[Path]:
    """Where in a class of events times may stand."""
    for name, hint in get_type_hints(kind).items():
        for part in {hint, *get_args(hint)}:
            if part is datetime:
                yield (*path, name)
            elif isinstance(part, type) and issubclass(part, Struct):
                yield from times(part, (*path, name))


def test_the_examples_hold_every_time_and_every_kind_of_event_and_of_place() -> None:
    assert {type(event) for event, _, _ in PLACES.values()} == set(EVERY_CLASS)
    assert {kind for _, _, kind in PLACES.values()} == set(WITHIN)
    for event_class in EVERY_CLASS:
        for path in times(event_class):
            assert f"{tag_of(event_class)} {'.'.join(path)}" in PLACES


@every_place
def test_what_lies_within_its_bounds_is_read(place: str) -> None:
    event, path, kind = PLACES[place]

    for value in WITHIN[kind]:
        assert msgspec.json.encode(read(event, with_value(event, path, value)))


@every_place
def test_what_lies_beyond_its_bounds_damages_the_event_alone_and_among_others(place: str) -> None:
    event, path, kind = PLACES[place]

    for value in BEYOND[kind]:
        state = with_value(event, path, value)
        with pytest.raises(CorruptEvent, match="position 7"):
            read(event, state)
        with pytest.raises(ValueError):  # noqa: PT011 - whichever the decoder makes
            decode_states([msgspec.json.encode(event), state])


@pytest.mark.parametrize("moment", [EARLIEST, LATEST])
@pytest.mark.parametrize("offset_h", [-23, 23])
def test_from_every_time_within_bounds_a_year_and_a_zone_can_be_computed(
    moment: datetime, offset_h: int
) -> None:
    for length_s in (-YEAR_S, YEAR_S):
        found = moment.astimezone(timezone(timedelta(hours=offset_h))) + timedelta(seconds=length_s)
        assert found.astimezone(UTC) - moment == timedelta(seconds=length_s)
