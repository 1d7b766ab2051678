"""Every version that was released is migrated, and is then what this program would have created."""

import warnings
from importlib.resources.abc import Traversable

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal import LiftOption, ProjectionOutdated, Stage
from recovery_journal.postgres.schema import FIRST_VERSION, newest_version
from tests.command_line import scenes
from tests.migrations.definitions import definitions_of
from tests.migrations.dump import SCHEMA, dumps, version_of
from tests.schemas import own_schema


@pytest.fixture(params=dumps(), ids=lambda dump: dump.name)
def dumped(request: pytest.FixtureRequest, server_dsn: str, schema: str) -> str:
    """A schema as the program of an older version left it; its name."""
    dump: Traversable = request.param
    text = dump.read_text(encoding="utf-8").replace(SCHEMA, schema)
    with psycopg.connect(server_dsn) as connection:
        connection.execute("SET LOCAL search_path = ''")
        connection.execute("SET LOCAL check_function_bodies = off")
        connection.execute(text.encode())
    return schema


def open_migrated(server_dsn: str, schema: str) -> rj.Journal:
    """The journal on this server, which is not the one of the dump."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProjectionOutdated)
        return rj.open(server_dsn, schema=schema, may_migrate=True, must_be_accepted=False)


def test_each_version_but_the_one_under_way_has_a_dump() -> None:
    versions = {version_of(dump) for dump in dumps()}

    assert versions >= set(range(FIRST_VERSION, newest_version()))
    assert max(versions) <= newest_version()


def test_a_migrated_schema_is_defined_like_a_new_one(server_dsn: str, dumped: str) -> None:
    with own_schema(server_dsn) as fresh:
        with open_migrated(server_dsn, dumped) as journal:
            journal.rebuild(process_count=1)  # tables of projections are made, not migrated
        with rj.open(server_dsn, schema=fresh) as journal:
            journal.rebuild(process_count=1)

        assert definitions_of(server_dsn, dumped) == definitions_of(server_dsn, fresh)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE leases SET (fillfactor = 50)",
        "ALTER TABLE leases ADD COLUMN note text",
        "ALTER TABLE leases ALTER COLUMN pid TYPE integer",
        "ALTER TABLE leases ALTER COLUMN host DROP NOT NULL",
        "ALTER TABLE leases ALTER COLUMN host SET DEFAULT ''",
        "ALTER TABLE runs DROP CONSTRAINT runs_check",
        "ALTER TABLE journal_events ENABLE TRIGGER journal_refuse_change",
        "ALTER SEQUENCE epochs CACHE 2",
        "DROP INDEX leases_run",
        "DROP VIEW journal_log",
        "ALTER FUNCTION journal_refuse_change() STABLE",
    ],
    ids=lambda change: "_".join(change.split()[:7]),
)
def test_each_kind_of_change_makes_another_definition(
    server_dsn: str, schema: str, change: str
) -> None:
    rj.open(server_dsn, schema=schema).close()
    before = definitions_of(server_dsn, schema)
    scenes.execute(server_dsn, schema, change)

    assert definitions_of(server_dsn, schema) != before


def test_what_an_older_program_left_is_continued(server_dsn: str, dumped: str) -> None:
    with open_migrated(server_dsn, dumped) as journal:
        journal.rebuild(process_count=1)
        restored = journal.after_restore(by="clerk-1", reason="from a dump", is_restored=True)

        assert all(checked.is_right for checked in journal.check())
        assert [difference.kind for difference in restored.differences] == []
        assert journal.result("a-completed") == {"pages": 12}
        lifted = journal.lift_quarantine(
            "a-quarantined", LiftOption.RESTART, by="clerk-1", reason="as agreed"
        )
        assert lifted.stage is Stage.READY
        journal.resume("a-waiting", by="clerk-1", reason="yes, send it")
        journal.sweep()
        claims = journal.claim(worker_id="w-new", limit=10)
        assert {claim.lease.attempt_id for claim in claims} == {
            *("a-held", "a-ready", "a-quarantined", "a-waiting")
        }
        for claim in claims:
            claim.lease.record_step("finish", None)
            claim.lease.complete("done")
        assert journal.result("a-held") == "done"
