"""The schema is made once, whoever comes, and one that is newer is left alone."""

import threading

import pytest

from domain.errors import SchemaMissing, SchemaTooNew
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database


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
        schemas.create(empty, lambda _cursor: 1 / 0)  # type: ignore[arg-type]  # it only fails

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
