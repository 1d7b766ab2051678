"""An event that this program cannot read stops a reader, which names it, and loses nothing."""

import re

import msgspec
import pytest
from eventsourcing.persistence import JSONTranscoder
from hypothesis import given as forall

from recovery_journal.domain.errors import CorruptEvent, RecoveryJournalError, UnknownEvent
from recovery_journal.domain.events import AnyEvent, tag_of
from recovery_journal.domain.recovery import Recovery
from recovery_journal.library_adapter import LibraryMapper, repository
from recovery_journal.log.mapper import decode
from recovery_journal.log.streams import decidable
from recovery_journal.postgres.database import Database
from tests.domain.any_event import events
from tests.domain.histories import given, granted, recovered
from tests.log.event_log import EventLog
from tests.log.events import ALLOW_VERSION_0, a_stream, an_event, append

TAG = tag_of(an_event("a", 1))
STATE = msgspec.json.encode(an_event("a-1", 3))
DEEP = b"[" * 100_000 + b"]" * 100_000
READY = given(granted(), *recovered(lost_epoch=1, recovery_no=1)[:-1]).ready


def put(database: Database, attempt_id: str, version: int, tag: str, state: bytes) -> None:
    """Append what no program of ours would."""
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
            "VALUES (%s, %s, %s, %s)",
            [attempt_id, version, tag, state],
        )


@forall(event=events())
def test_every_event_survives_the_mapper(event: AnyEvent) -> None:
    mapper = LibraryMapper(JSONTranscoder())

    assert mapper.to_domain_event(mapper.to_stored_event(event)) == event


def test_a_stream_cannot_begin_before_its_first_version(
    event_log: EventLog, database: Database
) -> None:
    with database.cursor() as cursor:
        cursor.execute(ALLOW_VERSION_0)
    put(database, "a-1", 0, TAG, msgspec.json.encode(an_event("a-1", 0)))

    with pytest.raises(CorruptEvent, match=r"'a-1', version 0.*>= 1"):
        event_log.reader.read(0, 10)


def test_a_time_without_its_offset_is_none() -> None:
    state = msgspec.json.encode(READY)
    naive = re.sub(rb'("ready_at":"[^"]*)Z"', rb'\1"', state)
    assert naive != state

    with pytest.raises(CorruptEvent, match="timezone"):
        read_alone(naive)


def read_alone(state: bytes) -> AnyEvent:
    """The event of a row that is the one after which `READY` is named."""
    assert READY is not None
    return decode(
        stream=READY.originator_id,
        version=READY.originator_version,
        tag=tag_of(READY),
        state=state,
        position=1,
    )


def test_a_stream_that_does_not_begin_with_its_grant_answers_with_an_error(
    event_log: EventLog, database: Database
) -> None:
    append(event_log, [*a_stream("a-1", 2), granted()("b", 1)])

    with pytest.raises(CorruptEvent, match="begin with its grant"):
        event_log.recovery("a-1")
    with database.transaction() as cursor:
        found = decidable(cursor, ["a-1", "b"])

    assert isinstance(found["a-1"], CorruptEvent)
    assert isinstance(found["b"], Recovery)


def test_every_field_is_written_out() -> None:
    state = msgspec.json.decode(STATE)

    assert set(state) == {"type", *an_event("a-1", 1).__struct_fields__}


DAMAGES = [
    pytest.param("brand-new", STATE, UnknownEvent, "brand-new", id="unknown tag"),
    pytest.param(TAG, b"", CorruptEvent, "truncated", id="nothing"),
    pytest.param(TAG, STATE[:-9], CorruptEvent, "truncated", id="cut off"),
    pytest.param(TAG, b"\xff" + STATE, CorruptEvent, "malformed", id="not UTF-8"),
    pytest.param(TAG, b"[]", CorruptEvent, "object", id="no object"),
    pytest.param("replayed", STATE, CorruptEvent, "says", id="another tag"),
    pytest.param(TAG, msgspec.json.encode(an_event("a-2", 3)), CorruptEvent, "a-2", id="stream"),
    pytest.param(TAG, msgspec.json.encode(an_event("a-1", 4)), CorruptEvent, "4", id="version"),
    pytest.param(TAG, STATE[:-1] + b',"new":' + DEEP + b"}", CorruptEvent, "recursion", id="deep"),
    pytest.param(
        TAG, STATE.replace(b'"epoch":1', b'"epoch":%d' % 2**63), CorruptEvent, "epoch", id="65 bits"
    ),
]


@pytest.mark.parametrize(("tag", "state", "error", "says"), DAMAGES)
def test_a_reader_is_given_what_comes_before_a_damaged_event_and_then_its_name(
    event_log: EventLog,
    database: Database,
    tag: str,
    state: bytes,
    error: type[RecoveryJournalError],
    says: str,
) -> None:
    append(event_log, a_stream("a-1", 2))
    put(database, "a-1", 3, tag, state)

    before = event_log.reader.read(0, 10)

    assert [record.position for record in before.records] == [1, 2]
    with pytest.raises(error, match=says) as refused:
        event_log.reader.read(before.settled, 10)
    for part in ("position 3", "'a-1'", "version 3", tag):
        assert part in str(refused.value)


@pytest.mark.parametrize(("tag", "state", "error", "says"), DAMAGES)
def test_a_damaged_stream_answers_with_its_error_and_others_with_their_events(
    event_log: EventLog,
    database: Database,
    tag: str,
    state: bytes,
    error: type[RecoveryJournalError],
    says: str,
) -> None:
    append(event_log, [*a_stream("a-1", 2), *a_stream("b", 1)])
    put(database, "a-1", 3, tag, state)

    found = event_log.load_many(["a-1", "b"])

    damaged, intact = found["a-1"], found["b"]
    assert isinstance(damaged, error)
    assert says in str(damaged)
    assert isinstance(intact, list)


@pytest.mark.parametrize(("tag", "state", "error", "says"), DAMAGES)
def test_the_repository_stops_at_a_damaged_event(
    event_log: EventLog,
    database: Database,
    tag: str,
    state: bytes,
    error: type[RecoveryJournalError],
    says: str,
) -> None:
    append(event_log, a_stream("a-1", 2))
    put(database, "a-1", 3, tag, state)

    with pytest.raises(error, match=says):
        list(repository(database).event_store.get("a-1"))
