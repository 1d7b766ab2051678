"""Streams read whole, with their events joined by the server."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import pytest

from recovery_journal.domain.errors import CorruptEvent, RecoveryJournalError, UnknownEvent
from recovery_journal.log.block import END, LogBlocks
from recovery_journal.projections.projection import Record
from tests.projections.writing import Writer

STRANGE = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT originator_id, max(originator_version) + 1, %(tag)s, %(state)s
FROM journal_events
GROUP BY originator_id
ORDER BY max(originator_version) DESC, originator_id
LIMIT 1
RETURNING originator_id, originator_version, notification_id
"""

TWO_EVENTS_IN_ONE = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
SELECT originator_id, originator_version + 1, topic, state || ','::bytea || state
FROM (
    SELECT DISTINCT ON (originator_id) *
    FROM journal_events
    ORDER BY originator_id, originator_version DESC
) AS newest
LIMIT 1
RETURNING originator_id, originator_version, notification_id
"""


@pytest.fixture(autouse=True)
def log(writer: Writer) -> None:
    writer.write_random(act_count=900)


def begun(writer: Writer, block_events: int, taken: list[Record], *, after: int = 0) -> None:
    blocks = LogBlocks(writer.database, block_events=block_events)
    with writer.database.transaction():
        for block in blocks.begun(after=after, last=END, upto=END):
            assert 0 < len(block) <= block_events
            taken += block


def by_stream(records: Iterable[Record]) -> dict[str, list[Record]]:
    streams = defaultdict(list)
    for record in records:
        streams[record.event.originator_id].append(record)
    return dict(streams)


@pytest.mark.parametrize("block_events", [1, 7, 60, 5_000])
def test_a_stream_read_whole_has_the_events_positions_and_times_of_the_log(
    writer: Writer, block_events: int
) -> None:
    taken: list[Record] = []

    begun(writer, block_events, taken)

    assert len(taken) > 200
    assert by_stream(taken) == by_stream(writer.log())


@pytest.mark.parametrize("block_events", [1, 7, 60, 5_000])
def test_each_stream_comes_in_one_piece(writer: Writer, block_events: int) -> None:
    taken: list[Record] = []

    begun(writer, block_events, taken)

    streams = [record.event.originator_id for record in taken]
    borders = sum(here != there for here, there in pairwise(streams))
    assert borders == len(set(streams)) - 1 > 5


@pytest.mark.parametrize("block_events", [1, 7, 60, 5_000])
@pytest.mark.parametrize(
    ("statement", "tag", "state", "kind"),
    [
        (STRANGE, "unheard-of", b"{}", UnknownEvent),
        (STRANGE, "dispatched,dispatched", b"{}", UnknownEvent),
        (STRANGE, "dispatched", b"no JSON", CorruptEvent),
        (STRANGE, "dispatched", b"", CorruptEvent),
        (STRANGE, "dispatched", b"\xff\xfe", CorruptEvent),
        (STRANGE, "dispatched", b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", CorruptEvent),
        (TWO_EVENTS_IN_ONE, "", b"", CorruptEvent),
    ],
    ids=["unknown", "comma", "no-json", "empty", "no-utf8", "deep", "two-in-one"],
)
def test_an_event_that_cannot_be_read_is_named_after_what_comes_before_it(
    writer: Writer,
    statement: str,
    tag: str,
    state: bytes,
    kind: type[RecoveryJournalError],
    block_events: int,
) -> None:
    with writer.database.cursor() as cursor:
        place = cursor.execute(statement, {"tag": tag, "state": state}).fetchone()
    assert place is not None
    stream, version = place["originator_id"], place["originator_version"]
    taken: list[Record] = []

    with pytest.raises(kind) as reported:
        begun(writer, block_events, taken)

    for said in (f"position {place['notification_id']}", repr(stream), f"version {version}"):
        assert said in str(reported.value)
    assert [record.event.originator_version for record in by_stream(taken)[stream]] == list(
        range(1, version)
    )
