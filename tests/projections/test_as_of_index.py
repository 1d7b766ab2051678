"""Making the index that as-of questions need: with the table, and beside everybody at work."""

import threading

import psycopg
import pytest

from recovery_journal.postgres.database import Database
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.as_of import ListReading
from recovery_journal.read_models.tables.as_of_index import AsOfIndex
from recovery_journal.read_models.tables.projection_table import ProjectionTable, table_of
from recovery_journal.read_models.tables.table_definition import TablePlace
from tests.projections.rebuilding import described
from tests.projections.test_as_of import entry
from tests.projections.test_switch import wait_until_blocked_by
from tests.projections.writing import Writer

NAME = "projection_dispatch_ready__as_of"
LIVE = table_of(DISPATCH_READY)


def is_valid(database: Database) -> bool:
    with database.cursor() as cursor:
        return AsOfIndex(LIVE.name).is_valid(cursor)


def drop(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute(f"DROP INDEX {NAME}".encode())


def add_beside_writers(database: Database) -> None:
    with database.cursor() as cursor:
        LIVE.add_as_of_index_beside_writers(cursor)


def test_an_index_made_beside_writers_is_the_one_that_a_new_table_has(writer: Writer) -> None:
    before = described(writer)
    drop(writer.database)
    assert not is_valid(writer.database)

    add_beside_writers(writer.database)
    add_beside_writers(writer.database)

    assert is_valid(writer.database)
    assert described(writer) == before


def test_the_remains_of_an_interrupted_try_are_replaced(writer: Writer, server_dsn: str) -> None:
    before = described(writer)
    drop(writer.database)
    other = Database(server_dsn, writer.database.schema, lock_s=0.05)
    with writer.database.transaction() as cursor:
        LIVE.upsert(cursor, [entry(1, 1)])
        with other.cursor() as impatient, pytest.raises(psycopg.Error):
            impatient.execute(
                f"CREATE INDEX CONCURRENTLY {NAME} ON {LIVE.name} (left_position)".encode()
            )
    assert not is_valid(writer.database)

    add_beside_writers(writer.database)

    assert is_valid(writer.database)
    assert described(writer) == before
    other.close()


def test_others_write_while_it_is_made_and_their_rows_are_in_it(
    writer: Writer, server_dsn: str
) -> None:
    drop(writer.database)
    databases = [Database(server_dsn, writer.database.schema) for _ in range(2)]
    making = threading.Thread(target=add_beside_writers, args=(databases[0],))

    with writer.database.transaction() as cursor:
        LIVE.upsert(cursor, [entry(1, 1, 9)])
        making.start()
        wait_until_blocked_by(server_dsn, cursor.connection.info.backend_pid)
        with databases[1].transaction() as meanwhile:
            LIVE.upsert(meanwhile, [entry(2, 2, 9)])
    making.join(60)

    assert not making.is_alive()
    assert is_valid(writer.database)
    with databases[1].cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    found = ListReading(databases[1]).listed(DISPATCH_READY, position=5, limit=10)
    assert [row.attempt_id for row in found] == ["a-01", "a-02"]
    for database in databases:
        database.close()


def test_the_limits_of_the_session_are_the_same_afterwards(database: Database) -> None:
    with database.transaction() as cursor:
        LIVE.create_bare(cursor)
    limits = "SELECT current_setting('statement_timeout') a, current_setting('lock_timeout') b"
    with database.cursor() as cursor:
        before = cursor.execute(limits).fetchone()

        LIVE.add_as_of_index_beside_writers(cursor)

        assert cursor.execute(limits).fetchone() == before


def test_a_table_that_is_no_list_has_no_such_index(database: Database) -> None:
    table = table_of(WORKERS)
    with database.transaction() as cursor:
        table.create(cursor)
    with database.cursor() as cursor:
        table.add_as_of_index_beside_writers(cursor)

        assert not AsOfIndex(table.name).is_valid(cursor)


@pytest.mark.parametrize("is_indexed", [True, False])
def test_the_index_of_a_shadow_goes_with_it_where_it_has_one(
    database: Database, *, is_indexed: bool
) -> None:
    shadow = ProjectionTable(DISPATCH_READY, TablePlace.SHADOW)

    with database.transaction() as cursor:
        shadow.create_bare(cursor)
        shadow.add_indexes(cursor)
        if is_indexed:
            shadow.add_as_of_index(cursor)
        shadow.take_name(cursor, LIVE.name)

    assert is_valid(database) == is_indexed
