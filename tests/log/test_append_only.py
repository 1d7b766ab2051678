"""The log refuses all that would change, reorder or forge it, from every role (R2)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, InsufficientPrivilege, UniqueViolation
from psycopg.rows import DictRow

from recovery_journal.log.appender import append as append_within
from recovery_journal.log.appender import append_cohort
from recovery_journal.postgres.database import Database
from tests.log.event_log import EventLog
from tests.log.events import a_stream, an_event, append

CHANGES: list[LiteralString] = [
    "UPDATE journal_events SET topic = 'forged'",
    "UPDATE journal_events SET topic = 'forged' WHERE false",
    "DELETE FROM journal_events",
    "DELETE FROM journal_events WHERE originator_id = 'unknown'",
    "TRUNCATE journal_events",
    (
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "VALUES ('a-1', 1, 'forged', '') "
        "ON CONFLICT (originator_id, originator_version) DO UPDATE SET topic = 'forged'"
    ),
]
COPY: LiteralString = "COPY journal_events ({}) FROM STDIN"
WRITTEN: LiteralString = "originator_id, originator_version, topic, state"


@pytest.fixture(autouse=True)
def _two_events(event_log: EventLog) -> None:
    append(event_log, a_stream("a-1", 2))


@pytest.fixture
def replica(other: Database) -> Database:
    """A session in which triggers that are merely enabled do not fire."""
    with other.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
    return other


INSERT: LiteralString = (
    "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
    "SELECT stream, version, 't', state FROM unnest(%s::text[], %s::int[]) AS put(stream, version) "
    "CROSS JOIN (SELECT %s::bytea) AS same(state)"
)
INSERT_WHOLE: LiteralString = (
    "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
    "VALUES (%s, %s, %s, %s)"
)
INSERT_TIMED: LiteralString = (
    "INSERT INTO journal_events (originator_id, originator_version, topic, state, recorded_at) "
    "VALUES ('b', 1, 't', '', %s)"
)
INSERT_PLACED: LiteralString = (
    "INSERT INTO journal_events (originator_id, originator_version, topic, state, notification_id) "
    "OVERRIDING SYSTEM VALUE VALUES ('b', 1, 't', '', %s)"
)

# The operators of the gap check, as a writer may make them in a schema of its own.
OPERATORS: list[tuple[LiteralString, LiteralString, LiteralString]] = [
    (">", "bigint", "integer"),
    ("<", "timestamptz", "timestamptz"),
    (">", "timestamptz", "timestamptz"),
]
NEVER: LiteralString = (
    "CREATE OR REPLACE FUNCTION never({left}, {right}) RETURNS boolean LANGUAGE sql "
    "AS 'SELECT false'"
)
OPERATOR: LiteralString = (
    "CREATE OPERATOR {operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = never)"
)


def insert(cursor: psycopg.Cursor[DictRow], *places: tuple[str, int], state: bytes = b"") -> None:
    """Insert at these places, in one statement."""
    streams, versions = zip(*places, strict=True)
    cursor.execute(INSERT, [list(streams), list(versions), state])


def rows(database: Database) -> list[DictRow]:
    with database.cursor() as cursor:
        return cursor.execute("SELECT * FROM journal_events ORDER BY notification_id").fetchall()


def copy_in(database: Database, columns: LiteralString, text: str) -> None:
    with database.transaction() as cursor, cursor.copy(sql.SQL(COPY).format(sql.SQL(columns))) as c:
        c.write(text)


@pytest.mark.parametrize("change", CHANGES)
def test_the_owner_changes_nothing(database: Database, change: LiteralString) -> None:
    before = rows(database)

    with pytest.raises(InsufficientPrivilege, match="append-only"), database.cursor() as cursor:
        cursor.execute(change)

    assert rows(database) == before


@pytest.mark.parametrize("change", CHANGES)
def test_no_statement_changes_anything_in_the_role_of_a_replica(
    replica: Database, change: LiteralString
) -> None:
    before = rows(replica)

    with pytest.raises(InsufficientPrivilege, match="append-only"), replica.cursor() as cursor:
        cursor.execute(change)

    assert rows(replica) == before


def test_a_version_without_its_predecessor_is_refused(database: Database) -> None:
    with pytest.raises(CheckViolation, match="found no version 3"), database.cursor() as cursor:
        insert(cursor, ("a-1", 4))


def test_a_gap_is_refused_in_the_role_of_a_replica(replica: Database) -> None:
    with pytest.raises(CheckViolation), replica.cursor() as cursor:
        insert(cursor, ("a-1", 4))


def test_a_gap_is_refused_by_copy(database: Database) -> None:
    with pytest.raises(CheckViolation, match="found no version 1"):
        copy_in(database, WRITTEN, "b-1\t1\tt\t\nb-2\t2\tt\t\n")

    assert len(rows(database)) == 2


def test_a_gap_inside_one_statement_is_refused(database: Database) -> None:
    with pytest.raises(CheckViolation), database.cursor() as cursor:
        insert(cursor, ("b", 1), ("b", 2), ("b", 4))


def test_a_predecessor_that_is_not_committed_is_none(
    database: Database, other: Database, event_log: EventLog
) -> None:
    with other.transaction() as theirs:
        append_within([an_event("a-1", 3)], theirs)

        with pytest.raises(CheckViolation), database.cursor() as cursor:
            insert(cursor, ("a-1", 4))

    assert append(event_log, [an_event("a-1", 4)])


def test_streams_begin_with_version_1(database: Database) -> None:
    with database.cursor() as cursor:
        insert(cursor, ("b", 1), ("c", 1))

    assert len(rows(database)) == 4


@pytest.mark.parametrize("version", [0, -1, -(2**31)])
@pytest.mark.parametrize("stream", ["a-1", "b", ""])
def test_no_stream_has_an_event_before_its_first(
    replica: Database, stream: str, version: int
) -> None:
    with pytest.raises(CheckViolation, match="originator_version"), replica.cursor() as cursor:
        insert(cursor, (stream, version))
    with pytest.raises(CheckViolation, match="originator_version"):
        copy_in(replica, WRITTEN, f"c\t1\tt\t\n{stream}\t{version}\tt\t\n")

    assert len(rows(replica)) == 2


def test_a_duplicate_is_refused(database: Database) -> None:
    with pytest.raises(UniqueViolation), database.cursor() as cursor:
        insert(cursor, ("a-1", 2))


def test_the_gap_check_looks_rows_up_however_small_the_log_was_at_first(
    database: Database,
) -> None:
    # The session has planned the check on a nearly empty log, and it was not analysed since.
    with database.transaction() as cursor:
        append_cohort([a_stream(f"s-{number}", 5) for number in range(2000)], cursor)

    with database.transaction() as cursor:
        before = _scanned(cursor)
        append_within([an_event("s-1", 6)], cursor)
        after = _scanned(cursor)

    assert after == before


def _scanned(cursor: psycopg.Cursor[DictRow]) -> int:
    row = cursor.execute(
        "SELECT pg_stat_get_xact_tuples_returned('journal_events'::regclass) AS seen"
    ).fetchone()
    assert row is not None
    return int(row["seen"])


def test_a_temporary_table_of_the_same_name_hides_nothing(
    database: Database, event_log: EventLog
) -> None:
    with database.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE journal_events (LIKE journal_events INCLUDING ALL)")

    append(event_log, [an_event("a-1", 3)])

    assert len(rows(database)) == 3


# Times and positions are the database's ----------------------------------------------------------


def test_the_database_sets_the_time(database: Database) -> None:
    with database.cursor() as cursor:
        row = cursor.execute("SELECT now() AS now").fetchone()

    assert row is not None
    assert abs(rows(database)[0]["recorded_at"] - row["now"]) < timedelta(minutes=1)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_time_cannot_be_forged(database: Database, days: int) -> None:
    forged = datetime.now(UTC) + timedelta(days=days)

    with (
        pytest.raises(InsufficientPrivilege, match="recorded_at"),
        database.cursor() as cursor,
    ):
        cursor.execute(INSERT_TIMED, [forged])
    with pytest.raises(InsufficientPrivilege, match="recorded_at"):
        copy_in(
            database,
            "originator_id, originator_version, topic, state, recorded_at",
            f"b\t1\tt\t\t{forged.isoformat()}\n",
        )


def test_a_position_cannot_be_chosen(database: Database) -> None:
    with pytest.raises(psycopg.errors.GeneratedAlways), database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO journal_events (originator_id, originator_version, topic, state, "
            "notification_id) VALUES ('b', 1, 't', '', 9)"
        )


def require_refused(database: Database, position: int, *, match: str) -> None:
    """Neither INSERT nor COPY can take this position."""
    with pytest.raises(InsufficientPrivilege, match=match), database.cursor() as cursor:
        cursor.execute(INSERT_PLACED, [position])
    with pytest.raises(InsufficientPrivilege, match=match):
        copy_in(
            database,
            "originator_id, originator_version, topic, state, notification_id",
            f"b\t1\tt\t\t{position}\n",
        )


def test_a_position_that_a_rollback_left_free_cannot_be_taken(database: Database) -> None:
    with pytest.raises(UniqueViolation), database.cursor() as cursor:
        insert(cursor, ("a-1", 2))
    free = 3

    require_refused(database, free, match="position 3")


@pytest.mark.parametrize("ahead", [4, 2**62])
def test_a_position_ahead_of_the_log_cannot_be_taken(database: Database, ahead: int) -> None:
    require_refused(database, ahead, match="position")


def test_a_position_drawn_before_its_statement_cannot_be_taken(database: Database) -> None:
    with database.cursor() as cursor:
        drawn = cursor.execute(
            "SELECT nextval('journal_events_notification_id_seq') AS position"
        ).fetchone()
    assert drawn is not None

    with pytest.raises(InsufficientPrivilege, match="position"), database.cursor() as cursor:
        cursor.execute(INSERT_PLACED, [drawn["position"]])


# A role that may only append ----------------------------------------------------------------------


@pytest.fixture
def writer(database: Database) -> Iterator[str]:
    """A role to which the log was granted for writing."""
    role = f"writer ü {uuid4().hex[:8]}"
    name = sql.Identifier(role)
    with database.transaction() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {}").format(name))
        granted = sql.SQL("SELECT journal_grant_writer({})").format(sql.Literal(f'"{role}"'))
        cursor.execute(granted)
    yield role
    with database.transaction() as cursor:
        cursor.execute(sql.SQL("DROP OWNED BY {}").format(name))
        cursor.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_writer_appends_and_reads(database: Database, writer: str) -> None:
    with database.transaction() as cursor:
        cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(writer)))
        insert(cursor, ("a-1", 3))
        seen = cursor.execute("SELECT count(*) AS count FROM journal_log").fetchone()

    assert seen == {"count": 3}


def test_operators_of_a_writers_own_decide_nothing(database: Database, writer: str) -> None:
    own = sql.Identifier(f"{database.schema}_own")
    with database.transaction() as cursor:
        cursor.execute(sql.SQL("CREATE SCHEMA {}").format(own))
        cursor.execute(sql.SQL("GRANT ALL ON SCHEMA {} TO {}").format(own, sql.Identifier(writer)))
        cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(writer)))
        cursor.execute(
            sql.SQL("SET LOCAL search_path TO {}, pg_catalog, {}").format(
                own, sql.Identifier(database.schema)
            )
        )
        for operator, left, right in OPERATORS:
            cursor.execute(sql.SQL(NEVER).format(left=sql.SQL(left), right=sql.SQL(right)))
            cursor.execute(
                sql.SQL(OPERATOR).format(
                    operator=sql.SQL(operator), left=sql.SQL(left), right=sql.SQL(right)
                )
            )

        with pytest.raises(CheckViolation), cursor.connection.transaction():
            insert(cursor, ("a-1", 4))

        cursor.execute("RESET ROLE")
        cursor.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(own))


@pytest.mark.parametrize(
    "attempt",
    [
        *CHANGES[:5],
        INSERT_TIMED.replace("%s", "now()"),
        INSERT_PLACED.replace("%s", "99"),
        "SELECT nextval('journal_events_notification_id_seq')",
        "SELECT setval('journal_events_notification_id_seq', 1)",
        "ALTER TABLE journal_events DISABLE TRIGGER ALL",
        "DROP TABLE journal_events",
        "CREATE TABLE mine (id int)",
    ],
)
def test_a_writer_may_do_nothing_else(other: Database, writer: str, attempt: LiteralString) -> None:
    with other.cursor() as cursor:
        cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(writer)))

    with pytest.raises(InsufficientPrivilege), other.cursor() as cursor:
        cursor.execute(attempt)


# For a person -------------------------------------------------------------------------------------


def test_the_view_shows_events_as_json(database: Database) -> None:
    with database.cursor() as cursor:
        row = cursor.execute("SELECT * FROM journal_log WHERE version = 2").fetchone()

    assert row is not None
    assert (row["attempt"], row["type"]) == ("a-1", "confirmed")
    assert row["event"]["recorded_by"]["role"] == "sweeper"


def test_the_view_shows_a_damaged_event_and_the_others(database: Database) -> None:
    with database.cursor() as cursor:
        insert(cursor, ("b", 1), state=b"\xff")
        seen = cursor.execute("SELECT event FROM journal_log").fetchall()

    assert [row["event"] for row in seen][2] == {"undecodable": "/w=="}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("topic", "state"),
    [
        ("t" * 101, b"{}"),
        ("ü" * 101, b"{}"),
        ("t", b"x" * (1024 * 1024 + 1)),
        ("t", b"\0" * (64 * 1024 * 1024)),  # a megabyte at most, however well it is compressed
    ],
)
def test_an_event_is_of_bounded_size(other: Database, topic: str, state: bytes) -> None:
    columns = ["s", 1, topic, state]

    with pytest.raises(CheckViolation), other.cursor() as cursor:
        cursor.execute(INSERT_WHOLE, columns)
    with (
        pytest.raises(CheckViolation),
        other.cursor() as cursor,
        cursor.copy(COPY.format(WRITTEN)) as copy,
    ):
        copy.write_row(columns)


def test_an_event_of_the_largest_size_is_stored(other: Database) -> None:
    columns = ["s", 1, "ü" * 100, b"x" * 1024 * 1024]
    with other.cursor() as cursor:
        cursor.execute(INSERT_WHOLE, columns)
