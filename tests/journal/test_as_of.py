"""Looking back through the journal: lists and attempts as they were."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from msgspec.structs import replace

import recovery_journal
from recovery_journal import Journal
from recovery_journal.domain.errors import InvalidInput, UnknownAttempt
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.read_models.tables.projection_table import table_of

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[Journal]:
    with recovery_journal.open(server_dsn, schema=schema) as opened:
        yield opened


def recovered(journal: Journal, attempt_id: str, *, priority: int = 0) -> None:
    journal.acquire(
        attempt_id=attempt_id,
        run_id=f"run of {attempt_id}",
        worker_id=f"worker of {attempt_id}",
        priority=priority,
    )
    journal.report_lost(worker_id=f"worker of {attempt_id}", reason="gone")


def last_position(journal: Journal) -> int:
    return journal.log()[-1].position


def test_the_list_of_then_is_what_readers_saw_then(journal: Journal) -> None:
    seen: dict[int, list[DispatchReadyRow]] = {}

    def look() -> None:
        seen[last_position(journal)] = journal.dispatch_ready()

    recovered(journal, "a-1")
    look()
    recovered(journal, "a-2", priority=5)
    look()
    journal.claim(worker_id="w", limit=1)
    look()
    journal.report_lost(worker_id="w", reason="gone too")
    look()
    journal.cancel("a-1", by="clerk", reason="not needed")
    look()

    again = {position: journal.dispatch_ready(at=position) for position in seen}
    journal.rebuild()
    rebuilt = {position: journal.dispatch_ready(at=position) for position in seen}

    assert again == rebuilt == seen
    assert [len(rows) for rows in seen.values()] == [1, 2, 1, 2, 1]


def test_a_time_shows_the_same_as_its_position(journal: Journal) -> None:
    recovered(journal, "a-1")
    ready = journal.log()[-1]
    journal.claim(worker_id="w")

    assert journal.position_at(ready.recorded_at) == ready.position
    assert journal.dispatch_ready(at=ready.recorded_at) == journal.dispatch_ready(at=ready.position)
    assert journal.recovery("a-1", at=ready.recorded_at).stage.value == "ready"
    assert journal.dispatch_ready(at=LONG_AGO) == []


def test_an_entry_that_must_not_start_yet_was_on_the_list_and_says_so(journal: Journal) -> None:
    recovered(journal, "a-1")
    (row,) = journal.dispatch_ready()
    deferred = replace(row, version=row.version + 1, not_before=journal.now() + timedelta(hours=1))
    with journal.database.transaction() as cursor:
        table_of(DISPATCH_READY).upsert(cursor, [deferred])

    assert journal.dispatch_ready() == []
    assert journal.dispatch_ready(at=last_position(journal)) == [deferred]
    assert journal.listed(DISPATCH_READY) == [deferred]


def test_filters_and_limit_hold_for_the_list_of_then(journal: Journal) -> None:
    for number in range(3):
        recovered(journal, f"a-{number}", priority=number)
    position = last_position(journal)
    journal.claim(worker_id="w", limit=2)

    assert [row.attempt_id for row in journal.dispatch_ready(at=position, limit=2)] == [
        "a-2",
        "a-1",
    ]
    assert len(journal.listed(DISPATCH_READY, at=position)) == 3
    assert len(journal.dispatch_ready(at=position, kinds=["run"], tenants=[""])) == 3
    assert journal.dispatch_ready(at=position, kinds=["other"]) == []


def test_an_attempt_of_then_is_the_fold_of_its_events_up_to_then(journal: Journal) -> None:
    recovered(journal, "a-1")
    recovered(journal, "a-2")
    journal.claim(worker_id="w", limit=2)

    for attempt_id in ("a-1", "a-2"):
        entries = journal.history(attempt_id)
        places = [entry.position for entry in entries] + [last_position(journal) + 1]
        for version, (place, following) in enumerate(pairwise(places), 1):
            expected = journal.recovery(attempt_id, version=version)
            assert journal.recovery(attempt_id, at=place) == expected
            assert journal.recovery(attempt_id, at=following - 1) == expected


def test_an_attempt_before_its_first_event_is_refused(journal: Journal) -> None:
    recovered(journal, "a-1")
    position = last_position(journal)
    recovered(journal, "a-2")

    with pytest.raises(InvalidInput, match=f"found {position}, where it had no event yet, needed"):
        journal.recovery("a-2", at=position)
    with pytest.raises(InvalidInput, match="found 0, where it had no event yet"):
        journal.recovery("a-2", at=LONG_AGO)
    with pytest.raises(UnknownAttempt):
        journal.recovery("a-3", at=position)


def test_a_position_that_the_log_has_not_reached_is_refused(journal: Journal) -> None:
    recovered(journal, "a-1")
    above = last_position(journal) + 1

    for look in (journal.position_at, lambda at: journal.dispatch_ready(at=at)):
        with pytest.raises(InvalidInput, match=f"found {above}, needed at most {above - 1}"):
            look(above)
    with pytest.raises(InvalidInput, match="version and at: found both"):
        journal.recovery("a-1", version=1, at=1)
