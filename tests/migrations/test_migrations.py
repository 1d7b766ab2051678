"""A newer program migrates the schema of an older one, on request alone; each step all or nothing.

There is one version so far, so the newer programs here are this one with migrations of the tests.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Cursor, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow

import recovery_journal as rj
from recovery_journal.cli.main import main
from recovery_journal.domain.errors import (
    SchemaMissing,
    SchemaOccupied,
    SchemaTooNew,
    SchemaTooOld,
    SchemaUnsafe,
    ServerUnavailable,
)
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.schema import FIRST_VERSION, Step
from tests.command_line import scenes
from tests.schemas import own_role

DIE_IN_A_MIGRATION = """
import sys, time
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database

def stop_in_the_middle(cursor):
    cursor.execute("ALTER TABLE runs ADD COLUMN note text")
    print("in the middle", flush=True)
    time.sleep(600)

schemas.MIGRATIONS = (stop_in_the_middle,)
schemas.migrate(Database(sys.argv[1], sys.argv[2]))
"""

Program = Callable[..., None]


def add_note(cursor: Cursor[DictRow]) -> None:
    cursor.execute("ALTER TABLE runs ADD COLUMN note text NOT NULL DEFAULT 'none'")
    cursor.execute("CREATE TABLE notes (note text)")


def add_second_note(cursor: Cursor[DictRow]) -> None:
    cursor.execute("ALTER TABLE runs ADD COLUMN second_note text")


def add_note_and_fail(cursor: Cursor[DictRow]) -> None:
    add_second_note(cursor)
    cursor.execute("SELECT 1 / 0")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes this program one that knows these migrations, and no others."""

    def become(*migrations: Step) -> None:
        monkeypatch.setattr(schemas, "MIGRATIONS", migrations)

    return become


@pytest.fixture
def database(server_dsn: str, schema: str) -> Iterator[Database]:
    """A journal of the first version, with an attempt in it."""
    with rj.open(server_dsn, schema=schema) as journal:
        scenes.held(journal)
    with closing(Database(server_dsn, schema)) as database:
        yield database


def version_of(database: Database) -> int:
    with database.cursor() as cursor:
        row = cursor.execute("SELECT version FROM journal_schema").fetchone()
    assert row is not None
    return int(row["version"])


def has_column(database: Database, name: str) -> bool:
    with database.cursor() as cursor:
        rows = cursor.execute(
            "SELECT FROM pg_attribute WHERE attrelid = 'runs'::regclass AND attname = %(name)s",
            {"name": name},
        ).fetchall()
    return bool(rows)


def set_version(database: Database, version: int) -> None:
    with database.cursor() as cursor:
        cursor.execute("UPDATE journal_schema SET version = %(version)s", {"version": version})


def execute(dsn: str, statement: str, **names: str) -> None:
    composed = sql.SQL(statement).format(
        **{key: sql.Identifier(name) for key, name in names.items()}
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(composed)


@contextmanager
def owner_and_other(dsn: str, schema: str) -> Iterator[tuple[str, str]]:
    """Two roles, of which the one owns the schema, and the other may only use and read it."""
    with own_role(dsn) as owner, own_role(dsn) as other:
        execute(dsn, "CREATE SCHEMA {schema} AUTHORIZATION {owner}", schema=schema, owner=owner)
        rj.open(make_conninfo(dsn, user=owner), schema=schema).close()
        execute(dsn, "GRANT USAGE ON SCHEMA {schema} TO {other}", schema=schema, other=other)
        execute(
            dsn,
            "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {other}",
            schema=schema,
            other=other,
        )
        yield owner, other
        execute(dsn, "DROP SCHEMA {schema} CASCADE", schema=schema)
        execute(dsn, "DROP OWNED BY {other}", other=other)


def test_open_does_not_migrate_by_itself_and_names_the_command(
    database: Database, server_dsn: str, program: Program
) -> None:
    program(add_note)

    for must_exist in (False, True):
        with pytest.raises(SchemaTooOld) as refused:
            rj.open(server_dsn, schema=database.schema, must_exist=must_exist)
        assert f"found schema version {FIRST_VERSION}, needed {FIRST_VERSION + 1}" in str(
            refused.value
        )
        assert f"`recovery-journal --schema {database.schema} init` as role" in str(refused.value)

    assert version_of(database) == FIRST_VERSION
    assert not has_column(database, "note")


def test_open_migrates_on_request_and_every_row_stays(
    database: Database, server_dsn: str, program: Program
) -> None:
    program(add_note, add_second_note)

    with rj.open(server_dsn, schema=database.schema, may_migrate=True) as journal:
        assert [type(entry.event).__name__ for entry in journal.history("a-1")] == [
            *("LeaseGranted", "Confirmed")
        ]

    assert version_of(database) == FIRST_VERSION + 2
    assert has_column(database, "note")
    assert has_column(database, "second_note")
    rj.open(server_dsn, schema=database.schema, must_exist=True).close()


def test_init_migrates_once(
    database: Database, server_dsn: str, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program(add_note)
    command = ["--dsn", server_dsn, "--schema", database.schema, "init"]

    codes = [main([*command, "--json"]), main([*command, "--json"]), main(command)]

    said = capsys.readouterr().out
    first, end = json.JSONDecoder().raw_decode(said)
    second: dict[str, Any]
    second, _ = json.JSONDecoder().raw_decode(said[end:].lstrip())
    assert codes == [0, 0, 0]
    assert (first["migrated_from"], first["version"]) == (FIRST_VERSION, FIRST_VERSION + 1)
    assert (second["migrated_from"], second["is_made"]) == (None, False)
    assert "The journal exists already" in said


def test_init_says_from_where_it_has_migrated(
    database: Database, server_dsn: str, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program(add_note)

    assert main(["--dsn", server_dsn, "--schema", database.schema, "init"]) == 0

    said = capsys.readouterr().out
    assert said.startswith(f"Migrated the journal from version {FIRST_VERSION}: schema ")
    assert f"(version {FIRST_VERSION + 1})" in said


def test_a_migration_that_fails_leaves_the_version_before_it_whole(
    database: Database, program: Program
) -> None:
    program(add_note, add_note_and_fail)

    with pytest.raises(psycopg.errors.DivisionByZero):
        schemas.migrate(database)

    assert version_of(database) == FIRST_VERSION + 1
    assert has_column(database, "note")
    assert not has_column(database, "second_note")

    program(add_note, add_second_note)
    schemas.migrate(database)
    assert version_of(database) == FIRST_VERSION + 2
    assert has_column(database, "second_note")


def test_a_process_killed_in_a_migration_leaves_the_version_before_it_whole(
    database: Database, server_dsn: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DIE_IN_A_MIGRATION, server_dsn, database.schema],
        stdout=subprocess.PIPE,
        text=True,
    ) as migrating:
        assert migrating.stdout is not None
        assert migrating.stdout.readline() == "in the middle\n"
        migrating.send_signal(signal.SIGKILL)

    assert not has_column(database, "note")
    assert version_of(database) == FIRST_VERSION
    schemas.check(database)


def test_two_that_migrate_at_once_take_each_step_once(
    database: Database, server_dsn: str, program: Program
) -> None:
    together = threading.Barrier(4)
    taken: list[str] = []

    def count(cursor: Cursor[DictRow]) -> None:
        taken.append("first")
        add_note(cursor)
        cursor.execute("SELECT pg_sleep(0.2)")

    def count_second(cursor: Cursor[DictRow]) -> None:
        taken.append("second")
        add_second_note(cursor)

    def migrate(_no: int) -> None:
        with closing(Database(server_dsn, database.schema)) as own:
            own.connection()
            together.wait(timeout=20)
            schemas.migrate(own)

    program(count, count_second)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, range(4)))

    assert taken == ["first", "second"]
    assert version_of(database) == FIRST_VERSION + 2


def test_an_older_program_is_refused_at_open_and_changes_nothing(
    database: Database, server_dsn: str, program: Program
) -> None:
    program(add_note)
    schemas.migrate(database)
    program()

    for may_migrate in (False, True):
        with pytest.raises(SchemaTooNew, match=f"found schema version {FIRST_VERSION + 1}"):
            rj.open(server_dsn, schema=database.schema, may_migrate=may_migrate)
    assert version_of(database) == FIRST_VERSION + 1


def test_an_older_program_that_still_runs_is_refused_when_it_reconnects(
    database: Database, server_dsn: str, program: Program
) -> None:
    with rj.open(server_dsn, schema=database.schema) as running:
        program(add_note)
        schemas.migrate(database)
        program()
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(%(pid)s)",
                {"pid": running.database.connection().info.backend_pid},
            )

        with pytest.raises(ServerUnavailable):
            running.status()
        with pytest.raises(SchemaTooNew):
            running.status()


def test_a_role_without_the_right_is_refused_with_the_role_and_the_command_needed(
    server_dsn: str, schema: str, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    with owner_and_other(server_dsn, schema) as (owner, other):
        program(add_note)
        dsn = make_conninfo(server_dsn, user=other)

        with pytest.raises(SchemaTooOld, match=f"--schema {schema} init` as role '{owner}'"):
            rj.open(dsn, schema=schema, may_migrate=True)
        with pytest.raises(SchemaUnsafe, match=f"owned by {owner}.*connect as its owner"):
            rj.open(dsn, schema=schema, may_migrate=True, must_be_own=True)
        assert main(["--dsn", dsn, "--schema", schema, "init"]) != 0
        assert "connect as its owner" in " ".join(capsys.readouterr().err.split())

        with closing(Database(make_conninfo(server_dsn, user=owner), schema)) as own:
            assert version_of(own) == FIRST_VERSION


def test_what_a_member_of_the_owner_migrates_belongs_to_the_owner(
    server_dsn: str, schema: str, program: Program
) -> None:
    with owner_and_other(server_dsn, schema) as (owner, other):
        execute(server_dsn, "GRANT {owner} TO {other}", owner=owner, other=other)
        program(add_note)

        with rj.open(make_conninfo(server_dsn, user=other), schema=schema, may_migrate=True):
            pass

        with closing(Database(make_conninfo(server_dsn, user=owner), schema)) as own:
            with own.cursor() as cursor:
                row = cursor.execute(
                    "SELECT tableowner FROM pg_tables WHERE tablename = 'notes' "
                    "AND schemaname = current_schema()"
                ).fetchone()
            assert row == {"tableowner": owner}


@pytest.mark.parametrize("version", [0, 1, FIRST_VERSION - 1])
def test_a_schema_from_before_the_first_release_is_refused_and_left_alone(
    database: Database, version: int
) -> None:
    set_version(database, version)

    for use in (schemas.check, schemas.create):
        with pytest.raises(
            SchemaTooOld, match=f"found schema version {version}, .* --schema NAME init"
        ):
            use(database)
    schemas.migrate(database)
    assert version_of(database) == version


def test_a_schema_without_its_version_is_not_migrated(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM journal_schema")

    with pytest.raises(SchemaOccupied, match="no rows"):
        schemas.migrate(database)


def test_a_missing_schema_is_not_made_by_a_migration(server_dsn: str, schema: str) -> None:
    with closing(Database(server_dsn, schema)) as empty:
        schemas.migrate(empty)

        with pytest.raises(SchemaMissing):
            schemas.check(empty)
