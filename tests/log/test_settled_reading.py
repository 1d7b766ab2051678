"""Every reader reads every event, in one order, none skipped (R3)."""

import multiprocessing
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery_journal.domain.errors import (
    AppendConflict,
    ReadOnlyServer,
    ServerUnavailable,
    TailLost,
)
from recovery_journal.library_adapter import LibraryRecorder
from recovery_journal.log import reader as settled
from recovery_journal.log.appender import append as append_within
from recovery_journal.log.appender import append_cohort
from recovery_journal.log.reader import SettledReader
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from tests.log.event_log import EventLog
from tests.log.events import a_stream, an_event, append, version_of
from tests.servers import PrivateServer

PATIENCE_S = 20.0


class Writer:
    """A writer in a transaction that stays open until it is released."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.database = Database(dsn, schema)
        self._event_log = EventLog(self.database)
        self.cursor = self.database.connection().cursor()
        self.cursor.execute("BEGIN")

    def append(self, attempt_id: str, version: int = 1) -> int:
        """Append without committing; the position."""
        event = an_event(attempt_id, version)
        append_within([event], self.cursor)
        [record] = self._event_log.records(self.cursor, [event])
        return record.position

    def commit(self) -> None:
        self.cursor.execute("COMMIT")

    def roll_back(self) -> None:
        self.cursor.execute("ROLLBACK")


@pytest.fixture
def writer(server_dsn: str, database: Database) -> Iterator[Callable[[], Writer]]:
    """Makes writers."""
    made: list[Writer] = []

    def make() -> Writer:
        made.append(Writer(server_dsn, database.schema))
        return made[-1]

    yield make
    for writer in made:
        writer.database.close()


@pytest.fixture
def reader(other: Database) -> SettledReader:
    """A reader that does not wait at a gap, so that a test sees it stop there."""
    return SettledReader(other, gap_wait_s=0)


def leave_gap(event_log: EventLog) -> None:
    """Take a number that no event will have."""
    with event_log.database.transaction() as cursor:
        append_within([an_event("rolled back", 1)], cursor)
        roll_back()


def roll_back() -> None:
    raise psycopg.Rollback


def positions(reader: SettledReader, after: int = 0) -> list[int]:
    return [record.position for record in reader.read(after, 100).records]


# Many writers, one reader ------------------------------------------------------------------------

PROCESS_COUNT = 4
TRANSACTION_COUNT = 150
SHARED_STREAM_COUNT = 5


def write_at_random(dsn: str, schema: str, seed: int) -> None:
    """Append to streams of one's own and to shared ones; dawdle, roll back, lose races."""
    chance = random.Random(seed)
    database = Database(dsn, schema)
    event_log = EventLog(database)
    for turn in range(TRANSACTION_COUNT):
        shared = f"shared-{chance.randrange(SHARED_STREAM_COUNT)}"
        last = version_of(event_log, shared)
        ours = a_stream(f"own-{seed}-{turn}", chance.randint(1, 4))
        theirs = [an_event(shared, last + 1, f"{seed}-{turn}")]
        if chance.random() < 0.2:
            with suppress(AppendConflict):  # the race is lost, and what its id left is a gap
                append(event_log, theirs)
            continue
        with database.transaction() as cursor:
            append_cohort([ours, theirs], cursor)
            time.sleep(chance.random() * 0.004)  # what is tested: commits in another order
            if chance.random() < 0.2:
                raise psycopg.Rollback
    database.close()


def test_one_reader_sees_everything_that_many_writers_append_once_and_in_order(
    server_dsn: str, database: Database
) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write_at_random, args=(server_dsn, database.schema, seed))
        for seed in range(PROCESS_COUNT)
    ]
    reader = SettledReader(database)

    for writer in writers:
        writer.start()
    seen: list[tuple[int, str, int]] = []
    after, is_last_turn = 0, False
    while not is_last_turn:
        is_last_turn = not any(writer.is_alive() for writer in writers)
        while (page := reader.read(after, 50)).records:
            seen += [
                (record.position, record.event.originator_id, record.event.originator_version)
                for record in page.records
            ]
            after = page.settled

    assert [writer.exitcode for writer in writers] == [0] * PROCESS_COUNT
    assert seen == in_the_table(database)
    assert len(seen) > PROCESS_COUNT * TRANSACTION_COUNT
    assert seen[-1][0] > len(seen), "no gap was left, so nothing was tested"
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for _, stream, version in seen:
        versions[stream].append(version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())


def in_the_table(database: Database) -> list[tuple[int, str, int]]:
    with database.cursor() as cursor:
        rows = cursor.execute("SELECT * FROM journal_events ORDER BY notification_id").fetchall()
    return [
        (row["notification_id"], row["originator_id"], row["originator_version"]) for row in rows
    ]


class NaiveReader:
    """The first statement of every writer: remember the last position, ask for what is above it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = 0

    def read(self) -> list[int]:
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT notification_id AS position FROM journal_events "
                "WHERE notification_id > %s ORDER BY notification_id",
                [self._after],
            )
            found = [row["position"] for row in cursor.fetchall()]
        self._after = max([self._after, *found])
        return found


def test_a_naive_reader_loses_what_a_settled_one_waits_for(
    writer: Callable[[], Writer], reader: SettledReader, database: Database
) -> None:
    naive, slow, quick = NaiveReader(database), writer(), writer()
    first, second = slow.append("slow"), quick.append("quick")
    quick.commit()

    too_early = naive.read(), positions(reader)
    slow.commit()
    at_last = naive.read(), positions(reader)

    assert too_early == ([second], [])
    assert at_last == ([], [first, second])


# At a gap ----------------------------------------------------------------------------------------


def test_what_comes_before_a_gap_is_read_and_nothing_after_it(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    before = append(event_log, [an_event("a", 1)])
    writer().append("open")
    append(event_log, [an_event("b", 1)])

    page = reader.read(0, 100)

    assert [record.position for record in page.records] == before
    assert page.settled == before[0] == reader.settled_position()


def test_a_rolled_back_append_holds_no_reader_up(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    undecided = writer()
    undecided.append("rolled back")
    committed = append(event_log, [an_event("b", 1)])
    undecided.roll_back()

    assert positions(reader) == committed
    assert reader.settled_position() == committed[0]


def test_a_rolled_back_append_at_the_end_of_the_log_is_no_gap(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    committed = append(event_log, [an_event("a", 1)])
    undecided = writer()
    undecided.append("at the end")

    while_open = positions(reader), reader.settled_position()
    undecided.roll_back()

    assert while_open == (committed, committed[0])
    assert (positions(reader), reader.settled_position()) == while_open


def test_an_append_undone_by_a_savepoint_holds_no_reader_up(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    undecided = writer()
    undecided.cursor.execute("SAVEPOINT before")
    undecided.append("undone")
    undecided.cursor.execute("ROLLBACK TO SAVEPOINT before")
    committed = append(event_log, [an_event("b", 1)])

    assert positions(reader) == committed


def test_writers_that_come_later_do_not_hold_up_a_reader_at_an_older_gap(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    slow = writer()
    slow.append("slow")
    committed = append(event_log, [an_event("b", 1)])
    at_the_gap = [positions(reader)]
    later = writer()
    later.append("later")
    at_the_gap.append(positions(reader))
    slow.roll_back()

    assert at_the_gap == [[], []]
    assert positions(reader) == committed
    later.commit()


def test_a_writer_that_only_reads_holds_no_reader_up(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    leave_gap(event_log)
    writer().cursor.execute("SELECT * FROM journal_events FOR SHARE")
    committed = append(event_log, [an_event("b", 1)])

    assert positions(reader) == committed


def test_a_writer_that_begins_during_the_look_is_not_missed(
    writer: Callable[[], Writer],
    reader: SettledReader,
    event_log: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_gap(event_log)
    committed = append(event_log, [an_event("a", 1)])
    slow, look = writer(), settled._writers
    appended: list[int] = []

    def look_and_lose_a_moment(*args: Any, **kwargs: Any) -> frozenset[str]:
        found = look(*args, **kwargs)
        if not appended:
            appended.extend([slow.append("slow"), *append(event_log, [an_event("b", 1)])])
        return found

    monkeypatch.setattr(settled, "_writers", look_and_lose_a_moment)
    before = positions(reader)
    slow.commit()

    assert before == committed
    assert positions(reader, after=committed[-1]) == appended


def test_a_patient_reader_waits_for_the_gap_to_be_filled(
    writer: Callable[[], Writer], other: Database, event_log: EventLog
) -> None:
    patient = SettledReader(other, gap_wait_s=PATIENCE_S)
    slow = writer()
    first = slow.append("slow")
    second = append(event_log, [an_event("b", 1)])[0]
    seen: list[int] = []

    reading = threading.Thread(target=lambda: seen.extend(positions(patient)))
    reading.start()
    while patient._watch is None:
        pass
    slow.commit()
    reading.join()

    assert seen == [first, second]


def test_a_cold_reader_passes_many_old_gaps_with_one_look(
    reader: SettledReader, event_log: EventLog
) -> None:
    kept = []
    for number in range(20):
        leave_gap(event_log)
        kept += append(event_log, [an_event(f"a-{number}", 1)])

    assert positions(reader) == kept
    assert reader._mark == kept[-1]


def test_pages_follow_on_each_other(reader: SettledReader, event_log: EventLog) -> None:
    appended = append(event_log, a_stream("a", 7))

    pages = []
    after = 0
    while (page := reader.read(after, 3)).records:
        pages.append([record.position for record in page.records])
        after = page.settled

    assert pages == [appended[:3], appended[3:6], appended[6:]]


def test_events_of_some_tags_are_as_settled_as_all(
    writer: Callable[[], Writer], reader: SettledReader, event_log: EventLog
) -> None:
    before = append(event_log, [an_event("a", 1)])
    slow = writer()
    slow.append("slow")
    append(event_log, [an_event("b", 1)])

    assert [row.position for row in reader.rows(0, 100, topics=["confirmed"])] == before
    assert reader.rows(0, 100, topics=["seized"]) == []
    slow.commit()
    assert len(reader.rows(0, 100, topics=["confirmed"])) == 3


# Where it must not read --------------------------------------------------------------------------


def test_a_reader_ahead_of_the_log_learns_that_the_tail_is_lost(
    reader: SettledReader, event_log: EventLog
) -> None:
    last = append(event_log, a_stream("a", 3))[-1]

    assert reader.read(last, 10).settled == last
    with pytest.raises(TailLost, match=f"position {last + 1} above the last event {last}"):
        reader.read(last + 1, 10)


def test_an_empty_log_is_read_from_its_beginning(reader: SettledReader) -> None:
    assert reader.read(0, 10) == ([], 0)
    assert reader.settled_position() == 0
    with pytest.raises(TailLost):
        reader.read(1, 10)


def test_a_prepared_transaction_is_still_a_writer(private_server: PrivateServer) -> None:
    database = Database(private_server.dsn, "journal")
    with database.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
    database.close()
    private_server.restart()
    database = Database(private_server.dsn, "journal")
    schemas.create(database)
    reader = SettledReader(database, gap_wait_s=0)
    slow = Writer(private_server.dsn, "journal")
    first = slow.append("slow")
    second = append(EventLog(database), [an_event("b", 1)])[0]
    before = positions(reader)

    slow.cursor.execute("PREPARE TRANSACTION 'slow'")
    prepared = positions(reader)
    private_server.restart()  # which gives it another name
    with pytest.raises(ServerUnavailable):
        positions(reader)
    restarted = positions(reader)
    with database.cursor() as cursor:
        cursor.execute("COMMIT PREPARED 'slow'")

    assert (before, prepared, restarted) == ([], [], [])
    assert positions(reader) == [first, second]
    slow.database.close()
    database.close()


def test_a_standby_is_refused(private_server: PrivateServer, server_folder: Path) -> None:
    database = Database(private_server.dsn, "journal")
    schemas.create(database)
    database.close()
    private_server.stop()
    next(server_folder.rglob("PG_VERSION")).with_name("standby.signal").touch()
    private_server.start()

    with pytest.raises(ReadOnlyServer, match="settled"):
        SettledReader(database := Database(private_server.dsn, "journal")).read(0, 10)
    with pytest.raises(ReadOnlyServer, match="write"), database.transaction() as cursor:
        cursor.execute("CREATE TABLE mine (id int)")

    database.close()


# Subscriptions -----------------------------------------------------------------------------------


def test_a_subscription_waits_at_a_gap_and_skips_nothing(
    writer: Callable[[], Writer], event_log: EventLog
) -> None:
    slow = writer()
    first = slow.append("slow")
    second = append(event_log, [an_event("b", 1)])[0]

    with LibraryRecorder(event_log.database).subscribe(timeout_s=0) as impatient:
        assert list(impatient) == []
    slow.commit()
    with LibraryRecorder(event_log.database).subscribe(timeout_s=0) as impatient:
        assert [event.id for event in impatient] == [first, second]


def test_a_subscription_that_waits_is_stopped_from_another_thread(
    event_log: EventLog,
) -> None:
    with LibraryRecorder(event_log.database).subscribe() as subscription:
        seen: list[object] = []
        waiting = threading.Thread(target=lambda: seen.extend(subscription))
        waiting.start()
        subscription.stop()
        waiting.join()

    assert seen == []


def test_a_subscription_to_some_tags_does_not_read_the_others_again(
    event_log: EventLog,
) -> None:
    last = append(event_log, a_stream("a", 5))[-1]

    with LibraryRecorder(event_log.database).subscribe(
        topics=["seized"], timeout_s=0
    ) as subscription:
        assert list(subscription) == []

    assert subscription._position == last
