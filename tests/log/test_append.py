"""Appending: all or nothing, conflicts, lost replies (R5), cohorts."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from recovery_journal.domain.errors import (
    AppendBlocked,
    AppendConflict,
    InvalidInput,
    ServerUnavailable,
    UnknownAttempt,
)
from recovery_journal.domain.events import AnyEvent
from recovery_journal.log.appender import FEW, append_cohort
from recovery_journal.log.appender import append as append_within
from recovery_journal.postgres.database import Database
from recovery_journal.store.writes import retry
from tests.log.event_log import EventLog
from tests.log.events import a_stream, an_event, append, version_of
from tests.relays.lossy_proxy import LossyProxy, Lost
from tests.relays.pooler import Pooler

BLOCKED = """
SELECT count(*) AS count
FROM pg_locks
WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
"""


@pytest.fixture
def proxy(server_dsn: str) -> Iterator[LossyProxy]:
    with LossyProxy.before(server_dsn) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: LossyProxy, database: Database) -> Iterator[EventLog]:
    """The event log by a way that can be cut."""
    far = Database(proxy.dsn, database.schema)
    yield EventLog(far)
    far.close()


def stored(event_log: EventLog, attempt_id: str) -> list[AnyEvent]:
    found = event_log.load_many([attempt_id]).get(attempt_id, [])
    assert isinstance(found, list)
    return [record.event for record in found]


# All or nothing -------------------------------------------------------------------------------


def test_appended_events_come_back_as_they_were(event_log: EventLog) -> None:
    events = a_stream("a-1", 3)

    positions = append(event_log, events)

    assert positions == sorted(positions)
    assert stored(event_log, "a-1") == events


@pytest.mark.parametrize(
    "attempt_id", ["ü", "試行-1", "a 'quoted\" \\ one", "🐘" * 50, "á", "a/b%s"]
)
def test_an_id_may_be_any_unicode(event_log: EventLog, attempt_id: str) -> None:
    events = a_stream(attempt_id, 2)

    append(event_log, events)

    assert stored(event_log, attempt_id) == events


def test_a_taken_version_raises_the_conflict_with_the_stored_event(
    event_log: EventLog,
) -> None:
    first = an_event("a-1", 1, "first")
    append(event_log, [first])

    with pytest.raises(AppendConflict) as refused:
        append(event_log, [an_event("a-1", 1, "second")])

    assert refused.value.stored == first


def test_the_same_event_id_is_a_conflict_like_any_other(
    event_log: EventLog,
) -> None:
    events = a_stream("a-1", 2)
    append(event_log, events)

    with pytest.raises(AppendConflict) as refused:
        append(event_log, events)

    assert refused.value.stored == events[0]
    assert stored(event_log, "a-1") == events


def test_a_gap_is_refused(event_log: EventLog) -> None:
    append(event_log, [an_event("a-1", 1)])

    with pytest.raises(AppendConflict, match="the stream at version 1"):
        append(event_log, [an_event("a-1", 3)])

    assert len(stored(event_log, "a-1")) == 1


def test_several_streams_are_appended_all_or_none(event_log: EventLog) -> None:
    append(event_log, [an_event("a-2", 1, "theirs")])

    with pytest.raises(AppendConflict, match="'a-2'"):
        append(event_log, [an_event("a-1", 1), an_event("a-2", 1, "ours")])

    assert stored(event_log, "a-1") == []


def test_nothing_to_append_has_no_effect(event_log: EventLog) -> None:
    assert append(event_log, []) == []


def test_events_commit_with_the_callers_transaction(database: Database, other: Database) -> None:
    elsewhere = EventLog(other)

    with database.transaction() as cursor:
        append_within([an_event("a-1", 1)], cursor)
        before = stored(elsewhere, "a-1")

    assert before == []
    assert len(stored(elsewhere, "a-1")) == 1


def test_a_conflict_leaves_the_callers_transaction_as_it_was(
    event_log: EventLog, database: Database
) -> None:
    first = an_event("a-1", 1)
    append(event_log, [first])

    with database.transaction() as cursor:
        with pytest.raises(AppendConflict) as refused:
            append_within([an_event("a-2", 1), an_event("a-1", 1, "other")], cursor)
        append_within([an_event("a-1", 2)], cursor)

    assert refused.value.stored == first
    assert len(stored(event_log, "a-1")) == 2
    assert stored(event_log, "a-2") == []


def test_of_two_threads_with_equal_bytes_one_wins(database: Database) -> None:
    event_log = EventLog(database)
    together = threading.Barrier(2)
    won: list[int] = []
    lost: list[AppendConflict] = []

    def race() -> None:
        for version in range(1, 51):
            together.wait(timeout=20)
            try:
                append(event_log, [an_event("a-1", version)])
                won.append(version)
            except AppendConflict as conflict:
                lost.append(conflict)

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert won == sorted(range(1, 51))
    assert len(lost) == 50


def test_appends_continue_after_a_transaction_of_their_thread_was_rolled_back(
    database: Database, event_log: EventLog
) -> None:
    append(event_log, [an_event("a-1", 1)])
    with database.transaction() as cursor:
        # psycopg forgets all prepared statements at a rollback, if it has prepared one itself.
        cursor.execute("SELECT 1", prepare=True)
        roll_back()

    append(event_log, [an_event("a-1", 2)])

    assert version_of(event_log, "a-1") == 2


def roll_back() -> None:
    raise psycopg.Rollback


def test_events_are_appended_through_a_pooler_that_lends_a_backend_for_each_transaction(
    database: Database, server_dsn: str
) -> None:
    with Pooler.before(server_dsn, search_path=database.schema) as pooler:
        far = Database(pooler.dsn, database.schema)
        event_log = EventLog(far)

        for version in range(1, 6):
            append(event_log, [an_event("a-1", version)])

        assert version_of(event_log, "a-1") == 5
        far.close()


def test_an_append_that_waits_too_long_for_another_writer_names_it(
    database: Database, server_dsn: str
) -> None:
    impatient = Database(server_dsn, database.schema, lock_s=0.1)
    with database.transaction() as cursor:
        append_within([an_event("a-1", 1)], cursor)

        with pytest.raises(AppendBlocked):
            append(EventLog(impatient), [an_event("a-1", 1, "another")])

    impatient.close()


# Lost replies ---------------------------------------------------------------------------------


def test_a_decision_whose_commit_reply_was_lost_is_found_by_its_id(
    far: EventLog, proxy: LossyProxy
) -> None:
    events = a_stream("a-1", 2)
    proxy.lose(b"COMMIT", Lost.REPLY)

    with pytest.raises(ServerUnavailable):
        append(far, events)

    assert proxy.loss_count == 1
    assert all(far.has_decision("a-1", event.event_id) for event in events)
    assert stored(far, "a-1") == events


@pytest.mark.parametrize("request_of", [b"COPY", b"COMMIT"])
def test_a_decision_whose_request_was_lost_is_not_found_and_can_be_appended(
    far: EventLog, proxy: LossyProxy, request_of: bytes
) -> None:
    append(far, [an_event("a-1", 1)])
    events = a_stream("a-1", 2, first=2)
    proxy.lose(request_of, Lost.REQUEST)

    with pytest.raises(ServerUnavailable):
        append(far, events)

    assert proxy.loss_count == 1
    assert not any(far.has_decision("a-1", event.event_id) for event in events)
    append(far, events)
    assert len(stored(far, "a-1")) == 3


def test_after_a_lost_request_another_decision_in_the_way_is_a_conflict(
    far: EventLog, proxy: LossyProxy, event_log: EventLog
) -> None:
    append(far, [an_event("a-1", 1)])
    append(event_log, [an_event("a-1", 2, "theirs")])
    events = [an_event("a-1", 2, "ours"), an_event("a-1", 3, "ours")]
    proxy.lose(b"journal_events", Lost.REQUEST)

    with pytest.raises(AppendConflict) as refused:
        retry(lambda: append(far, events))

    assert proxy.loss_count == 1
    assert not far.has_decision("a-1", "ours")
    assert getattr(refused.value.stored, "event_id", None) == "theirs"


def test_a_connection_cut_while_idle_is_opened_again(
    event_log: EventLog, database: Database, other: Database
) -> None:
    session_no = database.session_no()
    pid = database.connection().info.backend_pid
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 20000)", [pid])

    retry(lambda: append(event_log, [an_event("a-1", 1)]))

    assert database.session_no() > session_no


def test_an_unreachable_server_is_said_so(database: Database, server_dsn: str) -> None:
    with LossyProxy.before(server_dsn) as proxy:
        far = Database(proxy.dsn, database.schema)
        event_log = EventLog(far)
        append(event_log, [an_event("a-1", 1)])

    with pytest.raises(ServerUnavailable):
        append(event_log, [an_event("a-1", 2)])

    far.close()


# Cohorts --------------------------------------------------------------------------------------


def test_each_stream_of_a_cohort_answers_for_itself(
    event_log: EventLog, database: Database
) -> None:
    theirs = an_event("b", 1, "theirs")
    append(event_log, [theirs])
    batches = [a_stream("d", 1, first=3), a_stream("c", 3), a_stream("b", 2), a_stream("a", 1)]

    with database.transaction() as cursor:
        gap, fresh, stale, single = append_cohort(batches, cursor)

    assert isinstance(gap, AppendConflict)
    assert isinstance(stale, AppendConflict)
    assert stale.stored == theirs
    assert (fresh, single) == (3, 1)
    assert stored(event_log, "b") == [theirs]
    assert stored(event_log, "c") == batches[1]
    assert stored(event_log, "d") == []


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_in_a_cohort_of_single_events_each_stream_answers_for_itself(
    event_log: EventLog, database: Database, count: int
) -> None:
    theirs = an_event("b", 1, "theirs")
    append(event_log, [theirs])
    free = [[an_event(f"c-{number}", 1)] for number in range(count - 2)]

    with database.transaction() as cursor:
        batches = [[an_event("d", 3)], [an_event("b", 1)], *free]
        gap, stale, *done = append_cohort(batches, cursor)

    assert isinstance(gap, AppendConflict)
    assert isinstance(stale, AppendConflict)
    assert stale.stored == theirs
    assert done == [1] * (count - 2)
    assert stored(event_log, "b") == [theirs]
    assert stored(event_log, "c-0") == free[0]
    assert stored(event_log, "d") == []


def test_a_cohort_continues_when_another_is_faster_with_one_stream(
    event_log: EventLog, database: Database, other: Database
) -> None:
    # The stale stream comes first, so that the others are already being appended one by one.
    append(event_log, [an_event("a-stale", 1, "theirs")])
    batches = [a_stream("a-stale", 1), a_stream("b-raced", 2), a_stream("c-free", 2)]
    answers: list[int | AppendConflict] = []
    with other.transaction() as theirs:
        append_within([an_event("b-raced", 1, "theirs")], theirs)
        ours = threading.Thread(target=lambda: answers.extend(_cohort(database, batches)))
        ours.start()
        _wait_until_blocked(theirs)

    ours.join()

    assert [type(answer) for answer in answers] == [AppendConflict, AppendConflict, int]
    assert stored(event_log, "b-raced") == [an_event("b-raced", 1, "theirs")]
    assert stored(event_log, "c-free") == batches[2]


def _cohort(database: Database, batches: list[list[AnyEvent]]) -> list[int | AppendConflict]:
    with database.transaction() as cursor:
        return append_cohort(batches, cursor)


def _wait_until_blocked(cursor: psycopg.Cursor[dict[str, object]]) -> None:
    """Until somebody waits for the transaction of this cursor."""
    while (row := cursor.execute(BLOCKED).fetchone()) and not row["count"]:
        pass


def test_a_cohort_names_each_stream_once(database: Database) -> None:
    with pytest.raises(InvalidInput, match="two batches"), database.transaction() as cursor:
        append_cohort([[an_event("a", 1)], [an_event("a", 2)]], cursor)


def test_overlapping_cohorts_do_not_deadlock(database: Database) -> None:
    streams = [f"s-{number}" for number in range(1000)]
    together = threading.Barrier(2)
    answers: list[list[int | AppendConflict]] = []

    def run(turn: int) -> None:
        order = streams if turn % 2 else streams[::-1]
        for version in range(1, 4):
            batches = [[an_event(name, version)] for name in order]
            together.wait(timeout=20)
            answers.append(_cohort(database, batches))

    threads = [threading.Thread(target=run, args=(turn,)) for turn in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    done = [answer for cohort in answers for answer in cohort if isinstance(answer, int)]
    assert len(answers) == 6
    assert len(done) == len(streams) * 3


# Loading --------------------------------------------------------------------------------------


def test_many_streams_are_loaded_in_one_query(event_log: EventLog) -> None:
    append(event_log, a_stream("a", 2))
    append(event_log, a_stream("b", 3))

    found = event_log.load_many(["b", "unknown", "a"])

    assert {name: len(records) for name, records in found.items() if isinstance(records, list)} == {
        "a": 2,
        "b": 3,
    }


def test_an_unknown_attempt_is_said_so(event_log: EventLog) -> None:
    with pytest.raises(UnknownAttempt):
        event_log.recovery("unknown")


def test_a_decision_is_found_by_its_id(event_log: EventLog) -> None:
    append(event_log, [an_event("a-1", 1, "decided")])

    assert event_log.has_decision("a-1", "decided")
    assert not event_log.has_decision("a-1", "other")
