"""Only its owner chooses what our statements mean in a schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.cli.main import main
from recovery_journal.domain.errors import SchemaUnsafe
from tests.schemas import own_database

SCHEMA: LiteralString = "planted"


class Stranger:
    """A role that is not a superuser, in a database of the test's."""

    def __init__(self, dsn: str, name: str) -> None:
        self.superuser_dsn = dsn
        self.name = name
        self.dsn = make_conninfo(dsn, user=name)

    def execute(self, *statements: str, as_superuser: bool = False) -> None:
        dsn = self.superuser_dsn if as_superuser else self.dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.format(role=self.name, schema=SCHEMA).encode())

    @property
    def is_superuser(self) -> bool:
        query = "SELECT rolsuper FROM pg_roles WHERE rolname = %s"
        with psycopg.connect(self.superuser_dsn) as connection:
            row = connection.execute(query, [self.name]).fetchone()
        assert row is not None
        return bool(row[0])

    def plant(self) -> None:
        """Functions and operators that are better matches than the server's own."""
        self.execute(
            "CREATE FUNCTION {schema}.attack(text, integer) RETURNS bigint LANGUAGE plpgsql AS "
            "$$ BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN 0; END $$",
            "CREATE FUNCTION {schema}.hashtextextended(text, integer) RETURNS bigint "
            "LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN 0; END $$",
            "CREATE FUNCTION {schema}.refuse(oid, integer) RETURNS boolean LANGUAGE plpgsql AS "
            "$$ BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; RETURN true; END $$",
            "CREATE OPERATOR {schema}.= (LEFTARG = oid, RIGHTARG = integer, "
            "FUNCTION = {schema}.refuse)",
        )


@contextmanager
def a_role(dsn: str) -> Iterator[str]:
    name = f"stranger_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def stranger(server_dsn: str) -> Iterator[Stranger]:
    with a_role(server_dsn) as name, own_database(server_dsn) as dsn:
        yield Stranger(dsn, name)


def use(stranger: Stranger) -> None:
    """The uses of a journal by a superuser, by each of the ways in which it is opened."""
    for must_exist in (False, True):
        with rj.open(stranger.superuser_dsn, schema=SCHEMA, must_exist=must_exist) as journal:
            journal.rebuild(process_count=1)
            journal.check()
            journal.sweep()


def test_a_role_that_may_create_in_the_schema_is_refused(stranger: Stranger) -> None:
    rj.open(stranger.superuser_dsn, schema=SCHEMA).close()
    stranger.execute("GRANT ALL ON SCHEMA {schema} TO {role}", as_superuser=True)
    stranger.plant()

    with pytest.raises(SchemaUnsafe, match=rf"granted to {stranger.name}.*REVOKE CREATE"):
        use(stranger)

    assert not stranger.is_superuser


def test_everybody_is_refused_too(stranger: Stranger) -> None:
    stranger.execute(
        "CREATE SCHEMA {schema}", "GRANT CREATE ON SCHEMA {schema} TO PUBLIC", as_superuser=True
    )

    with pytest.raises(SchemaUnsafe, match="granted to PUBLIC"):
        use(stranger)


def test_what_was_planted_before_the_right_was_taken_back_is_refused(stranger: Stranger) -> None:
    rj.open(stranger.superuser_dsn, schema=SCHEMA).close()
    stranger.execute("GRANT ALL ON SCHEMA {schema} TO {role}", as_superuser=True)
    stranger.plant()
    stranger.execute("REVOKE ALL ON SCHEMA {schema} FROM {role}", as_superuser=True)

    with pytest.raises(SchemaUnsafe, match=rf"in it the (function|operator) .* of {stranger.name}"):
        use(stranger)

    assert not stranger.is_superuser


def test_no_journal_is_made_in_a_strangers_schema(stranger: Stranger) -> None:
    stranger.execute(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); "
        "END $$",
        as_superuser=True,
    )
    stranger.execute("CREATE SCHEMA {schema}")
    stranger.plant()

    with pytest.raises(SchemaUnsafe, match=f"owned by {stranger.name}"):
        use(stranger)

    assert not stranger.is_superuser


def test_a_view_in_place_of_the_journals_own_table_is_not_read(stranger: Stranger) -> None:
    stranger.execute(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); "
        "END $$",
        as_superuser=True,
    )
    stranger.execute("CREATE SCHEMA {schema}")
    stranger.plant()
    stranger.execute(
        "CREATE VIEW {schema}.journal_schema AS "
        "SELECT true AS is_only_row, {schema}.attack('', 0)::integer AS version"
    )

    with pytest.raises(rj.Refused):
        use(stranger)
    with pytest.raises(rj.Refused):
        rj.open(stranger.superuser_dsn, schema=SCHEMA, must_exist=True)

    assert not stranger.is_superuser


def test_a_default_that_lets_others_create_in_new_schemas_is_noticed(stranger: Stranger) -> None:
    stranger.execute(
        "ALTER DEFAULT PRIVILEGES GRANT CREATE ON SCHEMAS TO {role}", as_superuser=True
    )

    with pytest.raises(SchemaUnsafe, match=rf"granted to {stranger.name}"):
        rj.open(stranger.superuser_dsn, schema=SCHEMA)


def test_a_schema_that_was_made_for_the_journals_role_is_filled_by_it(stranger: Stranger) -> None:
    stranger.execute("CREATE SCHEMA {schema} AUTHORIZATION {role}", as_superuser=True)

    with rj.open(stranger.dsn, schema=SCHEMA) as journal:
        lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")
        lease.complete()

    stranger.execute("GRANT {role} TO CURRENT_USER", as_superuser=True)  # to say that it is trusted
    with rj.open(stranger.superuser_dsn, schema=SCHEMA) as journal:
        assert all(checked.is_right for checked in journal.check())


def test_a_member_of_the_owner_may_make_the_journal_and_others_use_it(stranger: Stranger) -> None:
    with a_role(stranger.superuser_dsn) as group, a_role(stranger.superuser_dsn) as user:
        stranger.execute(
            f"GRANT {group} TO {{role}}",
            f"CREATE SCHEMA {{schema}} AUTHORIZATION {group}",
            as_superuser=True,
        )
        rj.open(stranger.dsn, schema=SCHEMA).close()
        stranger.execute(
            f"GRANT USAGE ON SCHEMA {{schema}} TO {user}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA {{schema}} TO {user}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {{schema}} TO {user}",
            as_superuser=True,
        )

        dsn = make_conninfo(stranger.superuser_dsn, user=user)
        with rj.open(dsn, schema=SCHEMA) as journal:
            journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1").complete()

        stranger.execute(
            "DROP SCHEMA {schema} CASCADE", f"DROP OWNED BY {group}", as_superuser=True
        )


def test_init_is_refused_where_a_stranger_made_a_journal_before(stranger: Stranger) -> None:
    with a_role(stranger.superuser_dsn) as other:
        stranger.execute("CREATE SCHEMA {schema} AUTHORIZATION {role}", as_superuser=True)
        rj.open(stranger.dsn, schema=SCHEMA).close()
        stranger.execute(
            f"GRANT USAGE ON SCHEMA {{schema}} TO {other}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA {{schema}} TO {other}",
        )
        theirs = make_conninfo(stranger.superuser_dsn, user=other)

        for must_exist in (False, True):
            with pytest.raises(SchemaUnsafe, match="to which this role does not belong"):
                rj.open(theirs, schema=SCHEMA, must_exist=must_exist, must_be_own=True)
        assert main(["--dsn", theirs, "--schema", SCHEMA, "init"]) != 0
        rj.open(stranger.dsn, schema=SCHEMA, must_be_own=True).close()
        stranger.execute("DROP SCHEMA {schema} CASCADE")
