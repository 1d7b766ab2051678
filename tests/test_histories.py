"""The generator of the benchmarks' log: repeatable, and nothing that a journal would not write."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from typing import Any, Final

import msgspec
import pytest

from recovery_journal.domain.events import (
    AnyEvent,
    Dispatched,
    LeaseExpired,
    LeaseGranted,
    QuarantineCause,
    Quarantined,
    tag_of,
)
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import project
from recovery_journal.log.mapper import decode
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.schema import create_projections
from scripts.histories.log import (
    fill,
    fill_one_stream,
    fleet_events,
    one_stream,
)
from tests.log.event_log import EventLog

DIGEST: Final = re.compile(r"(cs1|ch1):[0-9a-f]{64}")
FENCED: Final = (LeaseGranted, LeaseExpired, Dispatched)


@pytest.fixture(scope="module")
def events() -> list[AnyEvent]:
    return list(islice(fleet_events(1), 20_000))


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    database = Database(server_dsn, schema)
    schemas.create(database, partial(create_projections, database))
    yield database
    database.close()


def streams_of(events: list[AnyEvent]) -> dict[str, list[AnyEvent]]:
    streams: defaultdict[str, list[AnyEvent]] = defaultdict(list)
    for event in events:
        streams[event.originator_id].append(event)
    return streams


def test_the_same_seed_makes_the_same_events(events: list[AnyEvent]) -> None:
    again = list(islice(fleet_events(1), 1_000))
    other = list(islice(fleet_events(2), 1_000))

    assert again == events[:1_000]
    assert other != again


def test_no_two_fleets_share_a_stream_an_epoch_or_a_worker() -> None:
    def made(fleet_no: int) -> list[AnyEvent]:
        return list(islice(fleet_events(1, fleet_no=fleet_no, fleet_count=2), 3_000))

    def drawn(events: list[AnyEvent]) -> set[object]:
        grants = [event for event in events if isinstance(event, LeaseGranted)]
        fences = [event.fence.epoch for event in grants]
        workers = [event.holder.worker_id for event in grants]
        return {*fences, *workers, *(event.originator_id for event in events)}

    first, second = drawn(made(0)), drawn(made(1))

    assert first
    assert second
    assert first.isdisjoint(second)


def test_every_stream_folds_from_its_grant_on(events: list[AnyEvent]) -> None:
    for stream in streams_of(events).values():
        recovery = project(None, stream)

        assert isinstance(stream[0], LeaseGranted)
        assert recovery is not None
        assert recovery.version == len(stream)
        assert recovery.recovery_no == sum(isinstance(event, LeaseExpired) for event in stream)


def test_a_lost_lease_is_seen_as_its_stream_says_it_was(events: list[AnyEvent]) -> None:
    seen_count = 0
    for stream in streams_of(events).values():
        for at, event in enumerate(stream):
            if isinstance(event, LeaseExpired):
                held = project(None, stream[:at])
                assert held is not None
                seen = event.lease

                assert (seen.holder, seen.fence) == (held.holder, held.fence)
                assert (seen.is_confirmed, seen.dispatch_id) == (
                    held.is_confirmed,
                    held.dispatch_id,
                )
                seen_count += 1
    assert seen_count > 1_000


def test_versions_have_no_gap_and_epochs_only_grow(events: list[AnyEvent]) -> None:
    for stream in streams_of(events).values():
        versions = [event.originator_version for event in stream]
        epochs = [
            event.fence.epoch for event in stream if isinstance(event, FENCED) and event.fence
        ]

        assert versions == list(range(1, len(stream) + 1))
        assert all(older < newer for older, newer in pairwise(epochs))


def test_a_crash_loop_ends_when_progress_has_stood_still_for_as_long_as_policy_allows(
    events: list[AnyEvent],
) -> None:
    streams = [it for it in streams_of(events).values() if isinstance(it[-1], Quarantined)]

    assert len(streams) > 50
    for *before, last in streams:
        recovery = project(None, before)
        reports = {event.lease.progress for event in before if isinstance(event, LeaseExpired)}

        assert isinstance(last, Quarantined)
        assert last.cause is QuarantineCause.CRASH_LOOP
        assert recovery is not None
        assert recovery.recoveries_without_progress == Policy().crash_loop_count
        assert len(reports) == 1


def test_digests_have_the_real_forms(events: list[AnyEvent]) -> None:
    fields = ("digest", "expected_digest", "state_digest", "input_digest", "result_digest")
    digests = {getattr(event, field, None) for event in events for field in fields} - {None}

    assert len(digests) > 1_000
    assert all(DIGEST.fullmatch(str(digest)) for digest in digests)


def test_there_are_four_events_to_a_recovery() -> None:
    events = list(islice(fleet_events(1), 100_000))

    recovery_count = sum(isinstance(event, LeaseExpired) for event in events)

    assert len(events) / recovery_count == pytest.approx(4.0, rel=0.02)


def test_every_event_decodes_to_itself(events: list[AnyEvent]) -> None:
    for event in events[:5_000]:
        assert stored_and_read(event) == event


def stored_and_read(event: AnyEvent) -> AnyEvent:
    return decode(
        stream=event.originator_id,
        version=event.originator_version,
        tag=tag_of(event),
        state=msgspec.json.encode(event),
        position=None,
    )


def test_a_filled_log_holds_every_event_once_and_each_stream_in_order(
    server_dsn: str, database: Database
) -> None:
    expected = {
        (event.originator_id, event.originator_version): event
        for fleet_no, event_count in enumerate([3_334, 3_334, 3_333])
        for event in islice(fleet_events(7, fleet_no=fleet_no, fleet_count=3), event_count)
    }

    fill(server_dsn, database.schema, event_count=10_001, seed=7, process_count=3)

    rows = rows_of(database)
    event_log = EventLog(database)
    assert {(row["originator_id"], row["originator_version"]) for row in rows} == set(expected)
    assert len(rows) == len(expected) == 10_001
    assert [row["notification_id"] for row in rows] == list(range(1, 10_002))
    assert all_in_order(rows)
    stream = rows[0]["originator_id"]
    stored = [event for (attempt, _), event in sorted_by_version(expected) if attempt == stream]
    assert event_log.recovery(stream) == project(None, stored)


def test_one_stream_holds_all_events_of_an_attempt_that_is_lost_again_and_again(
    server_dsn: str, database: Database
) -> None:
    expected = list(islice(one_stream(7), 1_001))

    fill_one_stream(server_dsn, database.schema, event_count=1_001, seed=7)

    event_log = EventLog(database)
    recovery = event_log.recovery(expected[0].originator_id)
    assert recovery == project(None, expected)
    assert recovery is not None
    assert (recovery.version, recovery.recovery_no) == (1_001, 167)
    assert len(rows_of(database)) == 1_001


def rows_of(database: Database) -> list[dict[str, Any]]:
    with database.cursor() as cursor:
        return cursor.execute("SELECT * FROM journal_events ORDER BY notification_id").fetchall()


def all_in_order(rows: list[dict[str, Any]]) -> bool:
    newest: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        newest[row["originator_id"]] += 1
        if row["originator_version"] != newest[row["originator_id"]]:
            return False
    return True


def sorted_by_version(
    events: dict[tuple[str, int], AnyEvent],
) -> list[tuple[tuple[str, int], AnyEvent]]:
    return sorted(events.items(), key=lambda item: item[0])
