"""The schema is made once, by any number of programs, and one that is newer is left alone."""

import threading

import pytest

from recovery_journal.domain.errors import SchemaMissing, SchemaOccupied, SchemaTooNew
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.read_models.schema import create_projections


@pytest.fixture
def empty(server_dsn: str, schema: str) -> Database:
    return Database(server_dsn, schema)


def test_a_schema_without_a_journal_is_missing(empty: Database) -> None:
    with pytest.raises(SchemaMissing, match="init"):
        schemas.check(empty)

    empty.close()


def test_what_was_made_is_found(database: Database) -> None:
    schemas.check(database)

    assert not schemas.create(database)


def test_many_may_make_it_at_once(server_dsn: str, schema: str) -> None:
    database = Database(server_dsn, schema)
    together = threading.Barrier(6)
    made: list[bool] = []

    def create() -> None:
        database.connection()
        together.wait(timeout=20)
        made.append(schemas.create(database))

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(made) == [False] * 5 + [True]
    database.close()


def test_a_step_that_fails_leaves_nothing_behind(empty: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        schemas.create(empty, lambda _cursor: 1 / 0)

    with pytest.raises(SchemaMissing):
        schemas.check(empty)
    empty.close()


def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("UPDATE journal_schema SET version = 1000")

    with pytest.raises(SchemaTooNew, match="1000"):
        schemas.check(database)
    with pytest.raises(SchemaTooNew, match="1000"):
        schemas.create(database)


@pytest.mark.parametrize(
    "something",
    [
        "TABLE leases (id integer)",
        "VIEW runs AS SELECT 1 AS run",
        "SEQUENCE epochs",
        "TYPE checkpoints AS ENUM ('yes')",
        "FUNCTION journal_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "TABLE journal_schema (id integer)",
        "TABLE projection_workers (id integer)",
        "TABLE rebuilds (id integer)",
    ],
    ids=lambda something: " ".join(something.split()[:2]),
)
def test_what_belongs_to_something_else_is_refused_and_left_alone(
    empty: Database, something: str
) -> None:
    with empty.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {empty.schema}".encode())
        cursor.execute(f"CREATE {something}".encode())

    with pytest.raises(SchemaOccupied, match=r"--schema NAME init"):
        schemas.create(empty, lambda cursor: create_projections(empty, cursor))

    with pytest.raises(SchemaMissing):
        schemas.check(empty)
    empty.close()


def test_a_dump_without_its_rows_is_no_journal(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM journal_schema")

    with pytest.raises(SchemaOccupied, match="no rows"):
        schemas.check(database)


def test_other_tables_beside_the_journals_do_no_harm(empty: Database) -> None:
    with empty.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {empty.schema}".encode())
        cursor.execute("CREATE TABLE invoices (id integer)")

    assert schemas.create(empty)
    empty.close()
