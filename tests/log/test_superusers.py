"""A superuser's session runs no code of a role that is none."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import SchemaUnsafe
from tests.schemas import own_database, own_role

BODY = (
    "LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN {value}; "
    "EXCEPTION WHEN insufficient_privilege THEN RETURN {value}; END $$"
)
BETTER_MATCH = "CREATE FUNCTION recovery_journal.hashtextextended(text, integer) RETURNS bigint "
TRIGGER = (
    "CREATE TRIGGER planted BEFORE INSERT ON recovery_journal.leases "
    "FOR EACH ROW EXECUTE FUNCTION planted.attack()"
)


class Mallory:
    """A role that may create schemas in a database of the test's, and nothing else."""

    def __init__(self, dsn: str, name: str) -> None:
        self.superuser_dsn = dsn
        self.name = name
        self.dsn = make_conninfo(dsn, user=name)

    def execute(self, *statements: str, dsn: str | None = None) -> None:
        with psycopg.connect(dsn or self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def plant_function(self) -> None:
        self.execute(BETTER_MATCH + BODY.format(role=self.name, value="0"))

    def plant_trigger(self) -> None:
        self.execute(
            "CREATE SCHEMA planted",
            "CREATE FUNCTION planted.attack() RETURNS trigger "
            + BODY.format(role=self.name, value="NEW"),
            TRIGGER,
        )

    @property
    def is_superuser(self) -> bool:
        query = "SELECT rolsuper FROM pg_roles WHERE rolname = %s"
        with psycopg.connect(self.superuser_dsn) as connection:
            row = connection.execute(query, [self.name]).fetchone()
        assert row is not None
        return bool(row[0])


@pytest.fixture
def mallory(server_dsn: str) -> Iterator[Mallory]:
    with own_role(server_dsn) as name, own_database(server_dsn) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            database, role = sql.Identifier(connection.info.dbname), sql.Identifier(name)
            connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, role))
        yield Mallory(dsn, name)


def work(dsn: str) -> None:
    """The commands that a superuser may be asked to run: init, rebuild --check, run."""
    with rj.open(dsn) as journal:
        journal.acquire(attempt_id=uuid4().hex, run_id=uuid4().hex, worker_id="w-1").complete()
        journal.check()
        journal.rebuild(process_count=1)
        journal.sweep()
        journal.claim(worker_id="w-2")


@pytest.mark.parametrize("must_exist", [False, True])
def test_a_whole_journal_of_another_role_is_not_run_by_a_superuser(
    mallory: Mallory,
    must_exist: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    rj.open(mallory.dsn).close()
    mallory.plant_function()

    with pytest.raises(SchemaUnsafe, match=rf"owned by {mallory.name} and this role a superuser"):
        rj.open(mallory.superuser_dsn, must_exist=must_exist)
    with pytest.raises(SchemaUnsafe):
        work(mallory.superuser_dsn)

    assert not mallory.is_superuser


def test_a_trigger_of_the_owners_is_not_run_by_a_superuser(mallory: Mallory) -> None:
    rj.open(mallory.dsn).close()
    mallory.plant_trigger()

    with pytest.raises(SchemaUnsafe, match="this role a superuser"):
        work(mallory.superuser_dsn)

    assert not mallory.is_superuser


def test_a_superuser_that_was_made_a_member_of_the_owner_trusts_it(
    mallory: Mallory,
) -> None:
    rj.open(mallory.dsn).close()

    mallory.execute(f"GRANT {mallory.name} TO CURRENT_USER", dsn=mallory.superuser_dsn)

    work(mallory.superuser_dsn)


def test_the_right_to_make_triggers_on_its_tables_keeps_a_superuser_out(mallory: Mallory) -> None:
    mallory.execute(
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {mallory.name}",
        f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {mallory.name}",
        dsn=mallory.superuser_dsn,
    )

    for must_exist in (False, True):
        with pytest.raises(SchemaUnsafe, match=rf"granted to {mallory.name}.*REVOKE TRIGGER"):
            rj.open(mallory.superuser_dsn, must_exist=must_exist)

    mallory.plant_trigger()
    with pytest.raises(SchemaUnsafe):
        work(mallory.superuser_dsn)
    assert not mallory.is_superuser


def test_a_trigger_that_was_planted_before_its_privilege_was_taken_back_is_refused(
    mallory: Mallory,
) -> None:
    rj.open(mallory.superuser_dsn).close()
    mallory.execute(
        f"GRANT USAGE ON SCHEMA recovery_journal TO {mallory.name}",
        f"GRANT TRIGGER ON recovery_journal.leases TO {mallory.name}",
        dsn=mallory.superuser_dsn,
    )
    mallory.plant_trigger()
    mallory.execute(
        f"REVOKE TRIGGER ON recovery_journal.leases FROM {mallory.name}", dsn=mallory.superuser_dsn
    )

    with pytest.raises(SchemaUnsafe, match=rf"trigger planted of {mallory.name}"):
        work(mallory.superuser_dsn)

    assert not mallory.is_superuser


def test_an_application_that_was_granted_everything_on_the_tables_still_works(
    mallory: Mallory,
) -> None:
    with rj.open(mallory.dsn) as journal:
        journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1").complete()
    mallory.execute("GRANT ALL ON ALL TABLES IN SCHEMA recovery_journal TO PUBLIC")

    work(mallory.dsn)


CONDITIONS = {
    "calls a function of a stranger's": "evil.f()",
    "runs a query by a function of the server's": (
        "query_to_xml('ALTER ROLE {name} SUPERUSER', true, true, '') IS NULL"
    ),
    "is harmless": "OLD.epoch <> NEW.epoch",
}


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_a_trigger_with_a_condition_is_refused_by_whatever_owner_of_its_function(
    mallory: Mallory, condition: str
) -> None:
    rj.open(mallory.superuser_dsn).close()
    mallory.execute(
        f"GRANT USAGE ON SCHEMA recovery_journal TO {mallory.name}",
        f"GRANT TRIGGER ON recovery_journal.leases TO {mallory.name}",
        dsn=mallory.superuser_dsn,
    )
    mallory.execute(
        "CREATE SCHEMA evil",
        "GRANT USAGE ON SCHEMA evil TO PUBLIC",
        "CREATE FUNCTION evil.f() RETURNS boolean LANGUAGE plpgsql AS "
        f"$$ BEGIN ALTER ROLE {mallory.name} SUPERUSER; RETURN false; END $$",
        "CREATE TRIGGER planted BEFORE UPDATE ON recovery_journal.leases FOR EACH ROW "
        f"WHEN ({condition.format(name=mallory.name)}) "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )
    mallory.execute(
        f"REVOKE TRIGGER ON recovery_journal.leases FROM {mallory.name}", dsn=mallory.superuser_dsn
    )

    with pytest.raises(SchemaUnsafe, match=r"trigger planted with a condition.*drop"):
        work(mallory.superuser_dsn)

    assert not mallory.is_superuser
    mallory.execute("DROP TRIGGER planted ON recovery_journal.leases", dsn=mallory.superuser_dsn)
    work(mallory.superuser_dsn)


def test_the_owner_runs_no_condition_of_another_role(mallory: Mallory, server_dsn: str) -> None:
    with own_role(server_dsn) as other:
        with rj.open(mallory.dsn):
            pass
        mallory.execute(
            f"GRANT USAGE ON SCHEMA recovery_journal TO {other}",
            f"GRANT TRIGGER ON recovery_journal.leases TO {other}",
        )
        mallory.execute(
            "CREATE TRIGGER planted BEFORE UPDATE ON recovery_journal.leases FOR EACH ROW "
            "WHEN (OLD.epoch <> NEW.epoch) "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            dsn=make_conninfo(mallory.superuser_dsn, user=other),
        )

        with pytest.raises(SchemaUnsafe, match="trigger planted with a condition"):
            work(mallory.dsn)

        mallory.execute("DROP SCHEMA recovery_journal CASCADE")
