"""The reading of a row does not depend on the rows that are read with it."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from recovery_journal.domain.errors import CorruptEvent
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.log.block import LogBlocks
from recovery_journal.log.mapper import decode_block, decode_states
from recovery_journal.postgres.database import Database
from recovery_journal.projections.corpus import corpus
from tests.log.event_log import EventLog
from tests.log.events import an_event
from tests.log.test_decoding import put

TAG = tag_of(an_event("a", 1))
FIRST, SECOND = (msgspec.json.encode(an_event(stream, 1)) for stream in ("a", "b"))

HALVES = {
    "a string": (FIRST + b"," + SECOND[:-1] + b',"reason":"left', b'right"}'),
    "a string that ends like an event": (FIRST + b"," + SECOND[:-1] + b',"reason":"}', b'{"}'),
    "an object": (FIRST + b"," + SECOND[:-1], b'"reason":""}'),
    "an object that is whole on both sides": (
        FIRST + b"," + SECOND[:-1] + b',"more":[{}',
        b"{}]}",
    ),
    "a member's name and its value": (FIRST + b"," + SECOND[:-1] + b',"reason"', b':""}'),
    "all in the first": (FIRST + b"," + SECOND, b""),
    "all in the first, and a space": (FIRST + b"\n" + SECOND, b" "),
    "all in the second": (b"", FIRST + b"," + SECOND),
    "all in the second, line by line": (b"\n", FIRST + b"\n" + SECOND),
}
NO_EVENTS = {
    "two numbers": (b"1", b"2"),
    "two texts": (b'"1', b'2"'),
    "a bracket each": (b"[", b"]"),
    "a brace each": (b"{", b"}"),
    "nothing at all": (b"", b""),
    "white space": (b" ", b"\n"),
    "two nulls": (b"null", b"null"),
    "two lists": (b"[]", b"[]"),
}


def cuts(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut a text in two, with and without the byte at the cut."""
    for at in range(len(text) + 1):
        yield text[:at], text[at:]
        yield text[:at], text[at + 1 :]


def alone(states: Sequence[bytes]) -> list[object] | None:
    """The event of each state by itself; None where one of them is no event."""
    try:
        return [msgspec.json.decode(state, type=AnyEvent) for state in states]
    except ValueError:
        return None


def together(states: Sequence[bytes]) -> list[object] | None:
    """The events when all are read at once; None where that is refused."""
    try:
        return [*decode_states(states)]
    except ValueError:
        return None


@pytest.mark.parametrize(
    "states", [*HALVES.values(), *NO_EVENTS.values()], ids=[*HALVES, *NO_EVENTS]
)
def test_two_states_are_two_events_only_where_each_is_one(states: tuple[bytes, bytes]) -> None:
    assert alone(states) is None
    assert together(states) is None


@pytest.mark.parametrize("separator", [b",", b"\n", b",\n", b"", b"}\n{", b"\n\n"])
def test_wherever_the_text_of_two_events_is_cut_the_halves_lend_each_other_nothing(
    separator: bytes,
) -> None:
    for states in cuts(FIRST + separator + SECOND):
        assert together(states) in (None, alone(states)), states


@forall(st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b",", b"\n", b'"', b":", b"1", FIRST])))
def test_whatever_states_stand_side_by_side_they_say_what_each_says_alone(
    states: list[bytes],
) -> None:
    assert together(states) in (None, alone(states))


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_events_that_were_appended_are_read_at_once(count: int) -> None:
    events = [record.event for record in corpus()][:count]
    streams = [event.originator_id for event in events]
    versions = [event.originator_version for event in events]
    tags = [tag_of(event) for event in events]
    states = [msgspec.json.encode(event) for event in events]

    assert decode_block(streams, versions, tags, states) == events


@pytest.mark.parametrize("states", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("limit", [1, 2, 10])
def test_a_row_that_is_half_an_event_stops_a_reader_on_pages_of_any_length(
    event_log: EventLog, database: Database, states: tuple[bytes, bytes], limit: int
) -> None:
    for stream, state in zip("ab", states, strict=True):
        put(database, stream, 1, TAG, state)

    with pytest.raises(CorruptEvent, match="position 1"):
        event_log.reader.read(0, limit)
    with pytest.raises(CorruptEvent, match="position 1"):
        list(LogBlocks(database, block_events=limit).by_position())
    assert all(isinstance(it, CorruptEvent) for it in event_log.load_many(["a", "b"]).values())
